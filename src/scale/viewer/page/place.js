// A place as the part of an address behind its #: slide, x, y (the middle, in level-0 pixels), zoom (screen pixels for
// each of them), classes (their names; left out where all are shown) and conf.

export function read(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const number = name => {
    const value = Number.parseFloat(words.get(name) ?? "");
    return Number.isFinite(value) ? value : null;
  };
  const zoom = number("zoom");
  return {
    slide: words.get("slide"),
    x: number("x"),
    y: number("y"),
    zoom: zoom !== null && zoom > 0 ? zoom : null,
    conf: number("conf"),
    classes: words.has("classes") ? words.getAll("classes").filter(name => name !== "") : null,
  };
}

export function write({ slide, x, y, zoom, conf, classes }) {
  const words = new URLSearchParams();
  words.set("slide", slide);
  words.set("x", x.toFixed(1));
  words.set("y", y.toFixed(1));
  words.set("zoom", zoom.toPrecision(4));
  words.set("conf", conf.toFixed(2));
  // A name may hold any character, so each has a word of its own; one empty word is "no class at all".
  if (classes) (classes.length ? classes : [""]).forEach(name => words.append("classes", name));
  return `#${words}`;
}
