// Runs before the page is drawn, so that a dark page never flashes white. The choice stays in this browser.
document.documentElement.dataset.theme = localStorage.getItem("mmdata-theme") ?? "system";
