// The page: buttons to speeches, one at a time, and speeches to text.

import { Connection, ask } from "./connection.js";
import { RATE } from "./pcm.js";
import { Settings, languageName } from "./settings.js";
import { Clip, Microphone, SourceError } from "./sources.js";
import { Strip } from "./strip.js";
import { toSrt, toVtt } from "./subtitles.js";
import { Transcript } from "./transcript.js";
import { TextView } from "./view.js";

const KEY = "simulsa-key"; // in the session's storage: gone when the tab is closed
const LOOK_MS = 5000;
const CLIPS_SHOWN = 4;
const EMBEDDED = ["tiny-en-de", "tiny-en-de-simul"]; // they know image captions only, which the page says

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((node) => [camel(node.id), node]));
const transcript = new Transcript();
const view = new TextView(element.text);
const strip = new Strip(element.strip);
const settings = new Settings(element, () => {
  strip.chunkS = settings.chosen.chunkMs / 1000;
  speech?.connection.update(settings.chosen);
});

let key = sessionStorage.getItem(KEY) ?? "";
let model = null; // as the server describes it
let speech = null; // what is being translated: { source, connection, label, started, paused, waits, ending }
let endS = 0; // of the speeches so far, in the page's time

// ---- the server

/** See whether the server is there while nobody speaks. */
async function look() {
  const { status, model: found } = await ask(key);
  if (speech) return;
  element.keyForm.hidden = status !== 401;
  if (status === 401) showState("locked", "Key needed");
  else if (!found) showState("waiting", "Server unreachable");
  else {
    if (model?.id !== found.id) meet(found);
    model = found;
    showState("ready", "Ready");
  }
  showButtons();
}

function meet({ id, simulsa }) {
  settings.offer(simulsa);
  strip.chunkS = settings.chosen.chunkMs / 1000;
  element.model.textContent = `${id} · ${languageName(simulsa.source_lang)} to ${languageName(simulsa.target_lang)}`;
  element.hint.hidden = !EMBEDDED.includes(id);
}

async function listClips() {
  const clips = await (await fetch("samples")).json();
  const show = () => {
    const shown = clips.splice(0, CLIPS_SHOWN);
    clips.push(...shown);
    element.clips.replaceChildren(...shown.map(clipButton));
  };
  element.others.addEventListener("click", show);
  show();
}

function clipButton(clip) {
  const button = document.createElement("button");
  button.textContent = clip.text;
  button.lang = clip.source_language;
  button.addEventListener("click", async () => {
    const answer = await fetch(clip.url).catch(() => null);
    if (answer?.ok) await playFile(await answer.blob(), "the sample", clip.text);
    else notice("The sample did not load; check that the server is running.");
  });
  const item = document.createElement("li");
  item.append(button);
  return item;
}

// ---- speeches

/** Translate a source, made by `open(onAudio, onEnd)`; whoever speaks now is finished first. */
async function begin(open, label, spoken = "") {
  if (!model) return;
  await end();
  if (speech) return; // somebody else was quicker
  notice("");
  const connection = new Connection(key, settings.chosen, endS, {
    onState: (state) => connected(current, state),
    onSpeech: (language) => { transcript.break(); view.break(language); },
    onText: addText,
    onUpdate: showUpdate,
    onTrouble: (sentence) => { notice(sentence); end(); },
    onKeyNeeded: async () => { await end(); look(); },
  });
  const source = open((samples) => connection.send(samples), (trouble) => { notice(trouble ?? ""); end(); });
  const current = speech = { source, connection, label, started: false, paused: false, waits: false };
  element.spoken.textContent = spoken;
  showSpeech();
  try {
    await source.start();
  } catch (error) {
    notice(error.message);
    if (!source.isOpen) await end();
    if (!(error instanceof SourceError)) throw error;
    current.paused = true;
  }
  if (speech !== current || current.ending) return source.stop();
  current.started = true;
  connection.open();
  showSpeech();
  return keepAwakeUntil(connection.closed);
}

/** Stop listening; resolves when the last words are there. */
async function end() {
  const current = speech;
  if (!current) return;
  current.ending ??= finish(current);
  showButtons();
  await current.ending;
}

async function finish({ source, connection }) {
  showState("busy", "Finishing");
  await source.stop();
  await connection.finish();
  endS = connection.position / RATE;
  view.tentative("");
  speech = null;
  element.spoken.textContent = "";
  showState("ready", "Ready");
  showButtons();
  look();
}

function connected(current, state) {
  if (current !== speech || current.ending || state === "closed") return;
  current.waits = state === "waiting";
  if (current.waits) view.tentative(""); // the server that guessed it is gone
  follow(current);
}

function togglePause() {
  speech.paused = !speech.paused;
  notice("");
  follow(speech);
}

/** Let the source run or not, as the reader and the server want it. */
async function follow(current) {
  showSpeech();
  const { source } = current;
  try {
    await (current.paused || (current.waits && source.canWait) ? source.pause() : source.resume());
  } catch (error) {
    current.paused = true;
    notice(error.message);
    showSpeech();
  }
}

const playFile = (blob, name, spoken) => begin((...handlers) => new Clip(blob, name, ...handlers), "Playing", spoken);

function playFirst([file]) {
  if (file) playFile(file, file.name);
}

// ---- what comes back

function addText(delta, startS, untilS) {
  view.committed(transcript.add(delta, startS, untilS).text);
  showButtons();
}

function showUpdate({ tentative, lagS, computeMs, chunks }) {
  view.tentative(tentative);
  strip.add({ lagS, computeS: computeMs / 1000, chunks });
  element.lag.textContent = `${lagS.toFixed(1)} s`;
  element.compute.textContent = `${Math.round(computeMs)} ms${chunks > 1 ? `, ${chunks} chunks at once` : ""}`;
  showButtons();
}

function clear() {
  endS = speech ? speech.connection.position / RATE : endS;
  transcript.clear(endS);
  view.clear();
  strip.clear();
  element.lag.textContent = element.compute.textContent = "–";
  notice("");
  showButtons();
}

// ---- what is shown

function showState(state, text) {
  element.state.dataset.state = state;
  if (element.state.textContent !== text) element.state.textContent = text; // else a screen reader says it again
}

/** A phone or a projector does not go dark while somebody speaks; where that cannot be had, it does. */
async function keepAwakeUntil(closed) {
  const lock = await navigator.wakeLock?.request("screen").catch(() => null);
  await closed;
  lock?.release();
}

function showSpeech() {
  if (speech.waits) showState("waiting", "Reconnecting");
  else if (speech.paused) showState("paused", "Paused");
  else showState("live", speech.label);
  showButtons();
}

function showButtons() {
  element.microphone.disabled = element.open.disabled = !model;
  element.microphone.classList.toggle("live", isListening());
  element.microphone.ariaPressed = String(isListening());
  element.stop.disabled = !speech || Boolean(speech.ending);
  element.pause.disabled = element.stop.disabled || !speech.started;
  element.pause.textContent = speech?.paused ? "Resume" : "Pause";
  const isEmpty = transcript.pieces.length === 0;
  for (const button of [element.copy, element.txt, element.srt, element.vtt]) button.disabled = isEmpty;
  element.clear.disabled = isEmpty && !element.text.childElementCount;
  element.placeholder.hidden = element.text.childElementCount > 0;
}

function notice(sentence) {
  element.notice.textContent = sentence;
}

async function copy() {
  try {
    await navigator.clipboard.writeText(transcript.text); // there is no clipboard on pages that came over plain http
    element.copy.textContent = "Copied";
    setTimeout(() => { element.copy.textContent = "Copy"; }, 1500);
  } catch {
    notice("The browser does not allow this page to copy; select the text and copy it yourself.");
  }
}

function download(extension, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  link.download = `translation.${extension}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Nothing but large type. Where a browser has no full screen for pages (phones), the page itself is all of it. */
async function showCaptions(on) {
  document.documentElement.classList.toggle("captions", on);
  element.captions.ariaPressed = String(on);
  element.captions.textContent = on ? "Close captions" : "Captions";
  if (on) await document.documentElement.requestFullscreen?.().catch(() => {});
  else if (document.fullscreenElement) await document.exitFullscreen();
  element.text.scrollTop = element.text.scrollHeight;
}

const isListening = () => speech?.source instanceof Microphone;

const captionsOn = () => document.documentElement.classList.contains("captions");

function camel(id) {
  return id.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
}

// ---- buttons

element.microphone.addEventListener("click", () =>
  (isListening() ? end() : begin((...handlers) => new Microphone(...handlers), "Listening")));
element.open.addEventListener("click", () => element.file.click());
element.file.addEventListener("change", () => {
  playFirst(element.file.files);
  element.file.value = ""; // so that the same file can be chosen again
});
element.pause.addEventListener("click", togglePause);
element.stop.addEventListener("click", end);
element.clear.addEventListener("click", clear);
element.copy.addEventListener("click", copy);
element.txt.addEventListener("click", () => download("txt", `${transcript.text}\n`));
element.srt.addEventListener("click", () => download("srt", toSrt(transcript.pieces)));
element.vtt.addEventListener("click", () => download("vtt", toVtt(transcript.pieces)));
element.captions.addEventListener("click", () => showCaptions(!captionsOn()));
document.addEventListener("fullscreenchange", () => { if (!document.fullscreenElement && captionsOn()) showCaptions(false); });
document.addEventListener("keydown", ({ key: pressed }) => { if (pressed === "Escape" && captionsOn()) showCaptions(false); });

element.keyForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  key = element.key.value.trim();
  sessionStorage.setItem(KEY, key);
  await look();
  notice(element.keyForm.hidden ? "" : "The server does not know this key.");
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", ({ relatedTarget }) => { if (!relatedTarget) document.body.classList.remove("dropping"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  playFirst(event.dataTransfer.files);
});

setInterval(() => { if (!speech && !document.hidden) look(); }, LOOK_MS);
look();
listClips().catch(() => { element.samples.hidden = true; });
