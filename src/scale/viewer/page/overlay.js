// The one canvas over the slide: clouds, boxes and outlines of what is in view, and the detection that was picked.

// Below this many milliseconds, everything is drawn anew in each frame.
const CHEAP_MS = 5;
// Boxes smaller than this on the screen are filled dots.
const DOT_PX = 4;
const EDGE = 0.25;

export class Overlay {
  constructor(map) {
    this.map = map;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "marks";
    map.viewer.canvas.append(this.canvas);
    this.context = this.canvas.getContext("2d");
    this.kept = document.createElement("canvas");
    this.keptAt = null;
    this.cost_ms = 0;
    this.drawn_ms = 0;
    this.solid = 0.9;
    this.picked = null;
    this.drawn = 0;
  }

  // What was kept of the vectors is out of date.
  stale() { this.keptAt = null; }

  draw(found, filter, { atRest }) {
    const { width, height } = this.map.size();
    const ratio = globalThis.devicePixelRatio || 1;
    const w = Math.round(width * ratio), h = Math.round(height * ratio);
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
      this.stale();
    }
    const at = this.map.transform();
    const begun = performance.now();
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, w, h);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const { single, cloudy } = found.split(filter.classes, at.scale);
    this.#clouds(found.clouds.value, cloudy, at);
    this.drawn = 0;
    const data = found.vectors.value;
    if (data && single.length) this.#vectors(data.found, { single, least: Math.fround(filter.least) }, at, { width, height, ratio, atRest });
    if (this.picked) this.#picked(at);
    this.drawn_ms = performance.now() - begun;
  }

  #clouds(value, cloudy, at) {
    if (!value || !cloudy.length) return;
    const [x0, y0] = value.rectangle;
    const { image, bin } = value;
    this.context.globalAlpha = this.solid;
    this.context.imageSmoothingEnabled = true;
    this.context.drawImage(image, at.x + x0 * at.scale, at.y + y0 * at.scale, image.width * bin * at.scale, image.height * bin * at.scale);
    this.context.globalAlpha = 1;
  }

  // Few are drawn anew in each frame. Many are drawn once, wider than the view, and that picture follows the moves.
  #vectors(data, shown, at, { width, height, ratio, atRest }) {
    const { context, kept } = this;
    context.globalAlpha = this.solid;
    if (this.cost_ms < CHEAP_MS) {
      const begun = performance.now();
      this.drawn = this.#paint(context, data, shown, at, [0, 0, width, height]);
      this.cost_ms = performance.now() - begun;
      this.keptAt = null;
    } else {
      const edgeX = EDGE * width, edgeY = EDGE * height;
      const old = this.keptAt;
      const factor = old ? at.scale / old.scale : 0;
      const left = old ? at.x - factor * old.x - factor * edgeX : 0;
      const top = old ? at.y - factor * old.y - factor * edgeY : 0;
      const covers = old && left <= 0.5 && top <= 0.5 && left + factor * (width + 2 * edgeX) >= width - 0.5 && top + factor * (height + 2 * edgeY) >= height - 0.5;
      const wanted = !old || old.data !== data || old.least !== shown.least || old.single !== shown.single.join() || (atRest && factor !== 1) || !covers || factor > 2 || factor < 0.5;
      const rested = performance.now() - (old ? old.when : 0) > 6 * this.cost_ms;
      if (wanted && (!old || atRest || rested)) {
        this.#keep(data, shown, at, { width, height, ratio, edgeX, edgeY });
        context.drawImage(kept, -edgeX, -edgeY, width + 2 * edgeX, height + 2 * edgeY);
      } else {
        context.drawImage(kept, left, top, factor * (width + 2 * edgeX), factor * (height + 2 * edgeY));
      }
      this.drawn = this.keptAt.drawn;
    }
    context.globalAlpha = 1;
  }

  #keep(data, shown, at, { width, height, ratio, edgeX, edgeY }) {
    const begun = performance.now();
    const { kept } = this;
    const w = Math.round((width + 2 * edgeX) * ratio), h = Math.round((height + 2 * edgeY) * ratio);
    if (kept.width !== w || kept.height !== h) { kept.width = w; kept.height = h; }
    const context = kept.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, w, h);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.translate(edgeX, edgeY);
    const drawn = this.#paint(context, data, shown, at, [-edgeX, -edgeY, width + edgeX, height + edgeY]);
    const now = performance.now();
    this.cost_ms = now - begun;
    this.keptAt = { ...at, data, least: shown.least, single: shown.single.join(), when: now, drawn };
  }

  // The classes lie one behind the other in the data, so each is one path of one color.
  #paint(context, data, { single, least }, { scale, x, y }, [left, top, right, bottom]) {
    const { boxes, scores, classes, offsets, points, n } = data;
    let drawn = 0;
    let number = -1, shows = false;
    const end = () => {
      if (number < 0 || !shows) return;
      const { color } = this.map.slide.classes[number];
      context.strokeStyle = context.fillStyle = color;
      context.lineWidth = 1.6;
      context.stroke();
    };
    for (let at = 0; at < n; at += 1) {
      if (classes[at] !== number) {
        end();
        number = classes[at];
        shows = single.includes(number);
        context.beginPath();
        if (shows) context.fillStyle = this.map.slide.classes[number].color;
      }
      if (!shows || scores[at] < least) continue;
      const x0 = x + boxes[4 * at] * scale, y0 = y + boxes[4 * at + 1] * scale;
      const x1 = x + boxes[4 * at + 2] * scale, y1 = y + boxes[4 * at + 3] * scale;
      if (x1 < left || y1 < top || x0 > right || y0 > bottom) continue;
      drawn += 1;
      if (x1 - x0 < DOT_PX && y1 - y0 < DOT_PX) context.fillRect(x0, y0, Math.max(1.5, x1 - x0), Math.max(1.5, y1 - y0));
      else if (offsets && offsets[at + 1] - offsets[at] > 2) outline(context, points, offsets[at], offsets[at + 1], { scale, x, y });
      else context.rect(x0, y0, x1 - x0, y1 - y0);
    }
    end();
    return drawn;
  }

  #picked({ scale, x, y }) {
    const [x0, y0, x1, y1] = this.picked.box;
    const { context } = this;
    for (const [color, width] of [["#ffffff", 5], ["#17181a", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.strokeRect(x + x0 * scale - 3, y + y0 * scale - 3, (x1 - x0) * scale + 6, (y1 - y0) * scale + 6);
    }
  }
}

function outline(context, points, begin, end, { scale, x, y }) {
  context.moveTo(x + points[2 * begin] * scale, y + points[2 * begin + 1] * scale);
  for (let at = begin + 1; at < end; at += 1) context.lineTo(x + points[2 * at] * scale, y + points[2 * at + 1] * scale);
  context.closePath();
}

// The smallest detection at a place, as its position in the data; -1 where there is none.
export function pick(data, { single, least }, { x, y }, slack) {
  let best = -1, smallest = Infinity;
  for (let at = 0; at < data.n; at += 1) {
    if (data.scores[at] < least || !single.includes(data.classes[at])) continue;
    const x0 = data.boxes[4 * at], y0 = data.boxes[4 * at + 1], x1 = data.boxes[4 * at + 2], y1 = data.boxes[4 * at + 3];
    if (x < x0 - slack || y < y0 - slack || x > x1 + slack || y > y1 + slack) continue;
    const size = (x1 - x0) * (y1 - y0);
    if (size < smallest) { smallest = size; best = at; }
  }
  return best;
}

// The area inside an outline, in square level-0 pixels.
export function outlineArea(points, begin, end) {
  let twice = 0;
  for (let at = begin, last = end - 1; at < end; last = at, at += 1) {
    twice += points[2 * last] * points[2 * at + 1] - points[2 * at] * points[2 * last + 1];
  }
  return Math.abs(twice) / 2;
}
