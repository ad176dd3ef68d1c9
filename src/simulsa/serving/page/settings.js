// Languages, chunk and rollback: what the server offers, what the reader chose.

const CHUNKS_MS = [200, 300, 500, 700, 1000, 1500, 2000, 3000, "inf"];
const names = new Intl.DisplayNames("en", { type: "language", fallback: "code" });

export const languageName = (code) => names.of(code.replace("_", "-"));

export class Settings {
  constructor(elements, onChange) {
    this.elements = elements;
    for (const input of [elements.chunk, elements.rollback]) input.addEventListener("input", () => this.show());
    for (const name of ["source", "target", "chunk", "rollback"]) elements[name].addEventListener("change", onChange);
  }

  /** Offer what a server has, `simulsa` in its entry of /v1/models, and choose what it would. */
  offer({ source_lang: source, target_lang: target, chunk_ms: chunkMs, rollback, policy, languages, min_chunk_ms: lowest }) {
    offerLanguages(this.elements.source, source, languages);
    offerLanguages(this.elements.target, target, languages);
    const possible = [...new Set([...CHUNKS_MS, chunkMs])].filter((chunk) => chunk === "inf" || chunk >= lowest);
    this.chunks = possible.sort((a, b) => Number(a) - Number(b) || 0);
    this.elements.chunk.max = this.chunks.length - 1;
    this.elements.chunk.value = this.chunks.indexOf(chunkMs);
    this.policy = policy;
    this.elements.rollback.disabled = rollback === null; // the server's policy is another, and stays
    this.elements.rollback.max = Math.max(10, rollback);
    this.elements.rollback.value = rollback;
    this.show();
  }

  get chosen() {
    const { source, target, chunk, rollback } = this.elements;
    return {
      source: source.value,
      target: target.value,
      chunkMs: this.chunks[chunk.value],
      rollback: rollback.disabled ? undefined : Number(rollback.value),
    };
  }

  show() {
    const { chunkMs, rollback } = this.chosen;
    const chunkText = chunkMs === "inf" ? "all of the speech" : chunkMs < 1000 ? `${chunkMs} ms` : `${chunkMs / 1000} s`;
    const rollbackText = rollback === undefined ? this.policy : rollback === 1 ? "1 token" : `${rollback} tokens`;
    for (const [input, output, text] of [["chunk", "chunkValue", chunkText], ["rollback", "rollbackValue", rollbackText]]) {
      this.elements[output].textContent = text;
      this.elements[input].ariaValueText = text; // its number would mean nothing to a screen reader
    }
  }
}

function offerLanguages(select, chosen, languages) {
  const codes = [...new Set([chosen, ...languages])].sort((a, b) => languageName(a).localeCompare(languageName(b)));
  select.replaceChildren(...codes.map((code) => new Option(languageName(code), code, false, code === chosen)));
}
