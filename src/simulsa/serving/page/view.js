// The text on the page: what is final in ink, what may still change in grey behind it.

export class TextView {
  constructor(box) {
    this.box = box;
    this.guess = document.createElement("span");
    this.guess.className = "tentative";
    this.guess.ariaHidden = "true"; // a screen reader would read every guess
    this.clear();
  }

  clear() {
    this.box.replaceChildren();
    this.paragraph = null;
  }

  /** The next text opens a paragraph in a language. */
  break(language) {
    this.tentative("");
    if (this.paragraph?.childElementCount === 1) this.paragraph.remove(); // nothing but the guess
    this.paragraph = null;
    this.language = language;
  }

  committed(text) {
    const piece = document.createElement("span");
    piece.textContent = text;
    this.change(() => this.guess.before(piece));
  }

  tentative(text) {
    if (text || this.paragraph) this.change(() => { this.guess.textContent = text; });
  }

  /** Change the last paragraph and keep its end in sight, unless somebody scrolled up to read. */
  change(how) {
    const { box } = this;
    const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    if (!this.paragraph) {
      this.paragraph = document.createElement("p");
      this.paragraph.lang = this.language;
      this.paragraph.append(this.guess);
      box.append(this.paragraph);
    }
    how();
    if (follows) box.scrollTop = box.scrollHeight;
  }
}
