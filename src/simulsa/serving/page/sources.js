// Where speech comes from: a microphone, or a clip that plays aloud. Both run in real time and have the same four verbs.
// `onAudio` gets float samples at RATE as they are spoken, the last of them before `stop` is done; `onEnd` is called when the speech
// is over by itself.

import { RATE, Resampler, mono } from "./pcm.js";

const FRAME = RATE / 10; // samples that are sent at a time
const FLUSH_MS = 500; // an audio thread that sleeps may never answer

/** Something that cannot be listened to; the message says what to do. */
export class SourceError extends Error {}

export class Microphone {
  canWait = false; // nobody who speaks is stopped because the server is away

  constructor(onAudio, onEnd) {
    this.onAudio = onAudio;
    this.onEnd = onEnd;
  }

  /** Ask for the microphone and listen. Throws SourceError. */
  async start() {
    if (!navigator.mediaDevices) { // browsers hide it from pages that came over plain http
      throw new SourceError("The browser gives the microphone to https pages only. Open this page over https or on the server's own machine.");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    } catch (error) {
      throw new SourceError(MICROPHONE_TROUBLES[error.name] ?? `The microphone does not start (${error.message}). Try another one.`);
    }
    this.stream.getTracks()[0].onended = () => this.onEnd("The microphone was unplugged or taken away. Connect it and press Microphone.");
    this.context = new AudioContext();
    const resampler = new Resampler(this.context.sampleRate, RATE);
    await this.context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
    const capture = this.capture = new AudioWorkletNode(this.context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    this.flushed = new Promise((resolve) => {
      capture.port.onmessage = ({ data }) => (data ? this.onAudio(resampler.push(data)) : resolve());
    });
    // the worklet says nothing; connected to the loudspeaker it is sure to be run
    this.context.createMediaStreamSource(this.stream).connect(capture).connect(this.context.destination);
    await this.context.resume();
  }

  pause() { return this.context.suspend(); }

  resume() { return this.context.resume(); }

  async stop() {
    this.stream?.getTracks().forEach((track) => { track.onended = null; track.stop(); });
    this.capture?.port.postMessage("flush");
    await Promise.race([this.flushed, new Promise((resolve) => setTimeout(resolve, FLUSH_MS))]);
    this.context?.close();
  }
}

const MICROPHONE_TROUBLES = {
  NotAllowedError: "This page may not use the microphone. Allow it beside the page's address, then press Microphone again.",
  NotFoundError: "There is no microphone. Connect one, or play a sample or a file.",
  NotReadableError: "Another program holds the microphone. Close that program, then press Microphone again.",
};

export class Clip {
  canWait = true;

  /** `blob` is an audio file, `name` what to call it in errors. */
  constructor(blob, name, onAudio, onEnd) {
    this.blob = blob;
    this.name = name;
    this.onAudio = onAudio;
    this.onEnd = onEnd;
    this.sent = 0; // samples
  }

  /** Whether it could be decoded, so that it can be resumed. */
  get isOpen() { return Boolean(this.player); }

  /** Decode the file and play it. Throws SourceError. */
  async start() {
    try {
      const decoder = new OfflineAudioContext(1, 1, RATE); // decodes to its own rate, and leaves audio of that rate as it is
      this.samples = mono(await decoder.decodeAudioData(await this.blob.arrayBuffer()));
    } catch {
      throw new SourceError(`This browser cannot decode ${this.name}. Try WAV, MP3, M4A, OGG or FLAC.`);
    }
    this.player = new Audio(URL.createObjectURL(this.blob));
    this.player.onended = () => {
      this.send(this.samples.length);
      this.stop();
      this.onEnd();
    };
    // the player's own events of progress are too rare
    this.timer = setInterval(() => this.send(Math.floor((this.player.currentTime * RATE) / FRAME) * FRAME), 40);
    await this.resume();
  }

  pause() { this.player.pause(); }

  /** Throws SourceError. */
  async resume() {
    try {
      await this.player.play();
    } catch (error) {
      if (error.name === "AbortError") return; // paused again before it began
      throw new SourceError("The browser plays no sound until the page has been clicked. Press Resume.");
    }
  }

  stop() {
    clearInterval(this.timer);
    if (!this.player) return;
    this.player.onended = null;
    this.player.pause();
    this.send(Math.floor(this.player.currentTime * RATE));
    URL.revokeObjectURL(this.player.src);
  }

  /** Send the samples before `end` that have not been sent. */
  send(end) {
    while (this.sent < Math.min(end, this.samples.length)) {
      const frame = this.samples.subarray(this.sent, Math.min(this.sent + FRAME, end));
      this.onAudio(frame);
      this.sent += frame.length;
    }
  }
}
