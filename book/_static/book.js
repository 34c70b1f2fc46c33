// What the theme and its extensions leave out for screen readers.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  // The sidebar with the logo is a landmark.
  const sidebar = document.querySelector(".bd-sidebar-primary");
  sidebar?.setAttribute("role", "complementary");
  sidebar?.setAttribute("aria-label", "Book");
  // Of a page with pages below it, what opens them has no text.
  for (const toggle of document.querySelectorAll("summary:has(.toctree-toggle)")) {
    const above = toggle.closest("li").querySelector("a").textContent.trim();
    toggle.setAttribute("aria-label", `Pages below: ${above}`);
  }
  // doc-biblioentry is deprecated, and a list wants list items.
  for (const entry of document.querySelectorAll('[role="doc-biblioentry"]')) {
    entry.setAttribute("role", "listitem");
  }
  // The empty corner of a table is no header.
  for (const corner of document.querySelectorAll("th")) {
    if (!corner.textContent.trim()) corner.replaceWith(document.createElement("td"));
  }
});
