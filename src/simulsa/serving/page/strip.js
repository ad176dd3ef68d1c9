// The quality of service over the last minute: lag as a line, compute per chunk as bars, a dashed line at what a chunk lasts.

const SHOWN_S = 60;
const HEIGHT_S = 1; // the scale reaches at least so far

export class Strip {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = []; // { at, lagS, computeS, chunks }
    this.chunkS = Infinity;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    setInterval(() => this.points.length && this.draw(), 1000); // time goes on
  }

  add(point) {
    this.points.push({ ...point, at: performance.now() / 1000 });
    this.draw();
  }

  clear() {
    this.points = [];
    this.draw();
  }

  draw() {
    const now = performance.now() / 1000;
    this.points = this.points.filter(({ at }) => now - at <= SHOWN_S);
    const { canvas, points } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    const budget = Number.isFinite(this.chunkS) ? this.chunkS : 0;
    const top = 1.15 * Math.max(HEIGHT_S, budget, ...points.map(({ lagS, computeS }) => Math.max(lagS, computeS)));
    const x = ({ at }) => width * (1 - (now - at) / SHOWN_S);
    const y = (seconds) => height - 1 - (seconds / top) * (height - 2);
    const colour = (name) => getComputedStyle(canvas).getPropertyValue(name);
    pen.fillStyle = pen.strokeStyle = colour("--faint");
    pen.fillRect(0, height - 1, width, 1);
    if (budget) {
      pen.setLineDash([3, 4]);
      path(pen, [[0, y(budget)], [width, y(budget)]]);
      pen.setLineDash([]);
    }
    for (const point of points) {
      pen.fillStyle = colour(point.chunks > 1 ? "--warning" : "--bar"); // several chunks at once: the model was behind
      pen.fillRect(x(point) - 2, y(point.computeS), 3, height - y(point.computeS));
    }
    pen.strokeStyle = colour("--accent");
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    for (const speech of speeches(points, 2 * Math.max(HEIGHT_S, budget))) path(pen, speech.map((point) => [x(point), y(point.lagS)]));
    canvas.setAttribute("aria-label", this.summary());
  }

  summary() {
    if (!this.points.length) return "Lag over the last minute: nothing was translated.";
    const longest = Math.max(...this.points.map(({ lagS }) => lagS));
    return `Lag over the last minute: now ${this.points.at(-1).lagS.toFixed(1)} seconds, at most ${longest.toFixed(1)}.`;
  }
}

/** The points in groups, a new one after each silence. */
function speeches(points, silenceS) {
  const groups = [];
  points.forEach((point, index) => {
    if (index && point.at - points[index - 1].at <= silenceS) groups.at(-1).push(point);
    else groups.push([point]);
  });
  return groups;
}

function path(pen, places) {
  pen.beginPath();
  places.forEach(([x, y]) => pen.lineTo(x, y));
  pen.stroke();
}
