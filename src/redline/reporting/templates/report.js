"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const tip = document.getElementById("tip");
  const shown = new Map();

  const line = (text, kind) => {
    const element = document.createElement(kind);
    element.textContent = text;
    return element;
  };

  function tooltip(_handler, event, _item, value) {
    if (!value) {
      tip.hidden = true;
      return;
    }
    tip.replaceChildren();
    for (const [name, text] of Object.entries(value)) {
      if (name === "title") tip.append(line(text, "strong"));
      else tip.append(line(name, "span"), line(text, "b"));
    }
    tip.hidden = false;
    const touch = event.touches?.[0] ?? event.changedTouches?.[0] ?? event;
    const box = tip.getBoundingClientRect();
    const left = Math.min(touch.clientX + 14, innerWidth - box.width - 8);
    const above = touch.clientY + box.height + 22 > innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above ? touch.clientY - box.height - 12 : touch.clientY + 16}px`;
  }

  // A plot in a hidden box has no width to fit into, so each is drawn when it is first seen.
  function draw() {
    for (const element of document.querySelectorAll("[data-spec]")) {
      if (shown.has(element) || element.offsetParent === null) continue;
      shown.set(element, null);
      vegaEmbed(element, specs[element.dataset.spec], { renderer: "svg", actions: false, tooltip }).then(
        () => element.setAttribute("data-drawn", ""),
        (error) => {
          element.textContent = "This plot could not be drawn.";
          console.error(error);
        },
      );
    }
  }

  function choose(group, value) {
    for (const button of document.querySelectorAll(`button[data-group="${group}"]`)) {
      button.setAttribute("aria-pressed", String(button.value === value));
    }
    for (const element of document.querySelectorAll(`[data-in="${group}"]`)) {
      element.hidden = element.dataset.value !== value;
    }
  }

  for (const button of document.querySelectorAll("button[data-group]")) {
    button.addEventListener("click", () => {
      choose(button.dataset.group, button.value);
      draw();
    });
    if (button.getAttribute("aria-pressed") === "true") choose(button.dataset.group, button.value);
  }

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", () => {
      const source = document.getElementById(button.dataset.copy);
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      // navigator.clipboard is missing on pages that were opened as a file in some browsers.
      const done = navigator.clipboard?.writeText(source.textContent) ?? Promise.reject(new Error("no clipboard"));
      done
        .catch(() => document.execCommand("copy"))
        .then(() => {
          button.textContent = "Copied";
          setTimeout(() => {
            button.textContent = "Copy";
          }, 1600);
        });
    });
  }

  document.documentElement.classList.add("js");
  draw();
  addEventListener("scroll", () => (tip.hidden = true), { passive: true });
})();
