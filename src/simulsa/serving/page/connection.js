// One speech on its way to the server and its translation on the way back: /v1/realtime/translations, OpenAI's protocol with
// simulsa's additions (docs/serving.md). A server that goes away is waited for.

import { RATE, toBase64, toPcm16 } from "./pcm.js";

const KEPT = 30 * RATE; // samples that wait while the server is away; what is older is lost
const RETRY_MS = [300, 1000, 2000, 4000]; // the last one for ever
const TOKEN = /^[\w!#$%&'*+.^`|~-]+$/; // what a subprotocol may be named
const [NORMAL, POLICY, INTERNAL_ERROR, TRY_AGAIN_LATER] = [1000, 1008, 1011, 1013];

/** Ask the server what it serves. Returns `{ status, model }`: an HTTP status, 0 if nobody answers, and an entry of /v1/models. */
export async function ask(key) {
  try {
    const answer = await fetch("v1/models", { headers: key ? { Authorization: `Bearer ${key}` } : {}, cache: "no-store" });
    return { status: answer.status, model: answer.ok ? (await answer.json()).data[0] : null };
  } catch {
    return { status: 0, model: null };
  }
}

/**
 * Handlers: `onState("connecting" | "open" | "waiting" | "closed")`; `onSpeech(language)`, what comes from now on is another
 * speech than before; `onText(delta, startS, endS)`, new text and the audio that was heard for it; `onUpdate({ tentative, lagS,
 * computeMs, chunks })`; `onTrouble(sentence)`, after which the connection is closed; `onKeyNeeded()`. Seconds count from the begin
 * of the page's text; `startS` is where this speech begins.
 */
export class Connection {
  constructor(key, settings, startS, handlers) {
    this.key = key;
    this.settings = settings;
    this.handlers = handlers;
    this.position = Math.round(startS * RATE); // of the next sample
    this.queue = []; // audio that the server has not been sent: { samples, end, at }
    this.queued = 0; // samples in it
    this.failures = 0;
    this.wasOpen = false;
    this.closed = new Promise((resolve) => { this.resolve = resolve; });
  }

  open() {
    this.handlers.onState(this.failures ? "waiting" : "connecting");
    const url = new URL("v1/realtime/translations", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = [];
    if (TOKEN.test(this.key)) protocols.push("realtime", `openai-insecure-api-key.${this.key}`);
    else if (this.key) url.searchParams.set("api_key", this.key);
    this.marks = []; // when the audio was spoken that this socket was sent: { end, at }
    this.base = null; // position of the first sample that this socket was sent
    this.accepted = false; // our settings, by the server
    this.reason = "";
    this.socket = new WebSocket(url, protocols);
    this.socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    this.socket.onclose = ({ code }) => this.lost(code);
  }

  /** Whether the server hears what is sent now; what is sent to a socket that is being closed gets lost. */
  get ready() {
    return this.accepted && this.socket.readyState === WebSocket.OPEN;
  }

  /** Send float samples at RATE that have just been spoken. */
  send(samples) {
    this.position += samples.length;
    this.queued += samples.length;
    this.queue.push({ samples, end: this.position, at: performance.now() });
    while (this.queued > KEPT) this.queued -= this.queue.shift().samples.length;
    if (this.ready) this.flush();
    else if (this.asleep) {
      this.asleep = false;
      this.open();
    }
  }

  /** Other settings from now on; what was said before is finished as it was. */
  update(settings) {
    this.settings = settings;
    if (this.ready) this.say("session.update", { session: requested(settings) });
  }

  /** Let the server translate what it has; resolves when everything is there. */
  finish() {
    const isNowhere = !this.socket || this.asleep || this.failures; // the server has nothing of this speech, or no more
    this.finishing = true;
    if (this.ready) this.say("session.close");
    else if (isNowhere) this.close();
    return this.closed;
  }

  close() {
    clearTimeout(this.retry);
    this.handlers.onState("closed");
    if (this.socket) this.socket.onclose = this.socket.onmessage = null;
    this.socket?.close();
    this.done = true;
    this.resolve();
  }

  say(type, fields = {}) {
    this.socket.send(JSON.stringify({ type, ...fields }));
  }

  flush() {
    for (const { samples, end, at } of this.queue) {
      this.base ??= end - samples.length;
      this.heardS ??= this.base / RATE;
      this.marks.push({ end, at });
      this.say("session.input_audio_buffer.append", { audio: toBase64(toPcm16(samples)) });
    }
    this.queue = [];
    this.queued = 0;
  }

  receive(event) {
    if (event.type === "session.created") this.say("session.update", { session: requested(this.settings) });
    else if (event.type === "session.updated") this.begin();
    else if (event.type === "session.output_transcript.delta") {
      const endS = this.place(event.elapsed_ms);
      this.handlers.onText(event.delta, this.heardS, endS);
      this.heardS = endS;
    } else if (event.type === "simulsa.tentative") {
      const { text: tentative, audio_ms: audioMs, compute_ms: computeMs, chunks } = event;
      this.handlers.onUpdate({ tentative, lagS: this.lagS(audioMs), computeMs, chunks });
    } else if (event.type === "error") {
      this.reason = event.error.message; // of the end that follows, if it is not
      if (event.error.type === "invalid_request_error") this.giveUp(sentence(this.reason)); // what was requested cannot be had
    }
  }

  begin() {
    this.handlers.onSpeech(this.settings.target);
    if (this.accepted) return; // other settings in the middle
    this.failures = 0;
    this.accepted = this.wasOpen = true;
    this.heardS = null;
    this.handlers.onState("open");
    this.flush();
    if (this.finishing) this.say("session.close");
  }

  /** The place in the page's time of a place in this socket's audio. */
  place(elapsedMs) {
    return this.base / RATE + elapsedMs / 1000;
  }

  /** How long ago the audio up to there was spoken: what a reader waits, with the network and the model in it. */
  lagS(audioMs) {
    const position = this.base + (audioMs / 1000) * RATE;
    while (this.marks.length > 1 && this.marks[0].end < position) this.marks.shift();
    const [mark] = this.marks;
    return mark ? Math.max(0, (performance.now() - mark.at) / 1000 + (mark.end - position) / RATE) : 0;
  }

  async lost(code) {
    const isRefused = code === TRY_AGAIN_LATER && !this.wasOpen; // later the server is waited for
    if (this.finishing && (this.accepted || code === NORMAL)) this.close();
    else if (code === NORMAL) this.asleep = true; // silent for long, as when paused; the next sound opens it again
    else if (isRefused || code === POLICY || code === INTERNAL_ERROR) this.giveUp(sentence(this.reason));
    else await this.tryAgain();
  }

  async tryAgain() {
    this.failures += 1;
    this.handlers.onState("waiting");
    const { status } = await ask(this.key); // a socket that is turned away does not say why
    if (this.done) return;
    if (status === 401) {
      this.close();
      this.handlers.onKeyNeeded();
    } else if (status === 403) this.giveUp("The server rejects pages from this address; start it with --allow-origins.");
    else if (this.finishing) this.close();
    else this.retry = setTimeout(() => this.open(), RETRY_MS[Math.min(this.failures, RETRY_MS.length) - 1]);
  }

  giveUp(trouble) {
    this.close();
    this.handlers.onTrouble(trouble);
  }
}

function requested({ source, target, chunkMs, rollback }) {
  return {
    audio: { output: { language: target } },
    simulsa: { tentative: true, sample_rate: RATE, source_language: source, chunk_ms: chunkMs, rollback },
  };
}

function sentence(reason) {
  return reason ? `${reason[0].toUpperCase()}${reason.slice(1)}.` : "The server ended this speech. Its log says why.";
}
