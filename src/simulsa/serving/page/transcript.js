// The text that is final, with the times of its audio. It only grows, until it is cleared.

export class Transcript {
  constructor() {
    this.clear(0);
  }

  /** Forget everything; times count from `startS` on. */
  clear(startS) {
    this.startS = startS;
    this.pieces = [];
    this.broken = true;
  }

  /** What comes next belongs to another speech, and to a new paragraph. */
  break() {
    this.broken = true;
  }

  /** Add new text and the place of its audio, in seconds; returns `{ text, opens }`, whether it opens a paragraph. */
  add(delta, startS, endS) {
    const opens = this.broken;
    const text = opens ? delta.trimStart() : delta;
    const [start, end] = [startS, endS].map((time) => Math.max(0, time - this.startS));
    this.pieces.push({ text, start, end, opens });
    this.broken = false;
    return { text, opens };
  }

  get text() {
    return this.pieces.map(({ text, opens }, index) => (opens && index ? `\n${text}` : text)).join("");
  }
}
