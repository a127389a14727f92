// What cannot wait for the rest of the page. Written so that browsers understand it that do not understand the rest.

(function () {
  var START_TIMEOUT_MS = 15000;
  var browserIsTooOld = !("noModule" in document.createElement("script"));

  // Where the form for an interval will be, there is room for it from the first picture on.
  if (/[?&]start=/.test(location.search)) document.documentElement.className = "own";

  // Says so where the page does not start: in a browser that is too old for it, or that did not get all of it.
  function tell() {
    var note = document.getElementById("old");
    if (note && !window.started) note.hidden = false;
  }

  window.addEventListener("error", tell, true);
  window.addEventListener("unhandledrejection", tell);
  window.addEventListener("DOMContentLoaded", function () {
    if (browserIsTooOld) tell();
  });
  setTimeout(function () {
    if (!window.loaded) tell();
  }, START_TIMEOUT_MS);
})();
