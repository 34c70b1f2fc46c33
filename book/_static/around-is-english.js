// Of a page in another language: around the article the theme's words and the other chapters' titles
// stay English.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  for (const part of document.querySelectorAll(".skip-link, #pst-back-to-top, #pst-search-dialog, "
    + ".bd-header, .bd-sidebar, .bd-header-article, .prev-next-footer, footer")) part.lang = "en";
});
