// Says so where the page does not start: in a browser that is too old for it, or that did not get all of it. Written so
// that such a browser understands it.

(function () {
  var PATIENCE = 15000;

  function tell() {
    if (!window.started) document.getElementById("old").hidden = false;
  }

  if (!("noModule" in document.createElement("script"))) tell();
  window.addEventListener("error", tell, true);
  window.addEventListener("unhandledrejection", tell);
  setTimeout(function () {
    if (!window.loaded) tell();
  }, PATIENCE);
})();
