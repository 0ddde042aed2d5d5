// Small helpers. Everything that comes from the server is set as text, never as markup.

export const of = id => document.getElementById(id);

export function make(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

export const count = value => value.toLocaleString("en-US");

// A width and a height in level-0 pixels, in micrometers where the size of a pixel is known.
export function size(width, height, mpp) {
  const longer = Math.max(width, height) * (mpp || 1);
  const [factor, unit] = !mpp ? [1, "px"] : longer >= 1000 ? [mpp / 1000, "mm"] : [mpp, "µm"];
  const digits = unit === "mm" ? 2 : longer < 100 ? 1 : 0;
  return `${(width * factor).toFixed(digits)} × ${(height * factor).toFixed(digits)} ${unit}`;
}

export function area(px, mpp) {
  if (!mpp) return `${count(Math.round(px))} px²`;
  const um = px * mpp * mpp;
  return um >= 1e5 ? `${(um / 1e6).toFixed(2)} mm²` : `${um.toFixed(um < 100 ? 1 : 0)} µm²`;
}

// The largest of 1, 2, 5, 10, 20, 50 … that is not above a value.
export function roundDown(value) {
  const ten = 10 ** Math.floor(Math.log10(value));
  return (value >= 5 * ten ? 5 : value >= 2 * ten ? 2 : 1) * ten;
}

export async function ask(path) {
  const reply = await fetch(path);
  if (!reply.ok) {
    let text = `the server answered ${reply.status}`;
    try { text = (await reply.json()).error || text; } catch { /* no JSON: the status has to do */ }
    throw new Error(text);
  }
  return reply;
}

export function debounced(wait_ms, work) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(work, wait_ms); };
}
