"""The auditor on public code that nobody here wrote: ``make audit-public``."""
