// The final text as subtitles. A piece of text is `{ text, start, end, opens }`, as Transcript keeps them: seconds of the audio that
// was heard for it, and whether it opens a paragraph.

const LINE = 42; // characters, as is usual for subtitles
const TEXT = 2 * LINE;
const LONGEST_S = 7;
const SHORTEST_S = 1;
const SENTENCE_END = /[.!?。！？…]["”»’)]*$/;

/** Cues `{ text, start, end }` that do not overlap: two lines, seven seconds, or a sentence at most. */
export function cues(pieces) {
  const found = [];
  for (const piece of pieces.flatMap(split)) {
    const last = found.at(-1);
    if (last && !piece.opens && fits(last, piece)) {
      last.text += piece.text;
      last.end = piece.end;
    } else {
      // after a silence the text belongs to the end of the time that was heard for it
      found.push({ text: piece.text, start: Math.max(piece.start, piece.end - LONGEST_S), end: piece.end });
    }
  }
  let free = 0;
  for (const cue of found) {
    cue.text = cue.text.trim().replace(/\s+/g, " "); // an empty line would end the cue
    cue.start = Math.max(cue.start, free);
    cue.end = free = Math.max(cue.end, cue.start + SHORTEST_S);
  }
  return found.filter(({ text }) => text);
}

export function toSrt(pieces) {
  return cues(pieces).map(({ text, start, end }, index) =>
    `${index + 1}\n${clock(start, ",")} --> ${clock(end, ",")}\n${lines(text)}\n\n`).join("");
}

export function toVtt(pieces) {
  const blocks = cues(pieces).map(({ text, start, end }) => `${clock(start, ".")} --> ${clock(end, ".")}\n${escaped(lines(text))}\n\n`);
  return `WEBVTT\n\n${blocks.join("")}`;
}

function fits(cue, piece) {
  return !SENTENCE_END.test(cue.text.trimEnd()) && (cue.text + piece.text).trim().length <= TEXT && piece.end - cue.start <= LONGEST_S;
}

/** A piece that is too long for one cue, as several; its time goes by the number of characters. */
function split(piece) {
  const characters = [...piece.text];
  if (characters.length <= TEXT) return [piece];
  const space = characters.lastIndexOf(" ", TEXT);
  const cut = space > 0 ? space : TEXT;
  const middle = piece.start + ((piece.end - piece.start) * cut) / characters.length;
  const [head, tail] = [characters.slice(0, cut).join(""), characters.slice(cut).join("")];
  return [{ ...piece, text: head, end: middle }, ...split({ text: tail, start: middle, end: piece.end, opens: false })];
}

function lines(text) {
  if (text.length <= LINE) return text;
  const spaces = [...text.matchAll(/ /g)].map(({ index }) => index);
  const middle = spaces.reduce((best, at) => (Math.abs(at - text.length / 2) < Math.abs(best - text.length / 2) ? at : best), 0);
  return middle ? `${text.slice(0, middle)}\n${text.slice(middle + 1)}` : text;
}

function clock(seconds, point) {
  const ms = Math.round(seconds * 1000);
  const [h, m, s] = [ms / 3_600_000, (ms / 60_000) % 60, (ms / 1000) % 60].map((part) => String(Math.floor(part)).padStart(2, "0"));
  return `${h}:${m}:${s}${point}${String(ms % 1000).padStart(3, "0")}`;
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
