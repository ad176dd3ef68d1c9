// Runs on the browser's audio thread: hands the microphone's samples to the page in pieces of a tenth of a second. Any message asks
// for what is left of the last piece; `null` after it says that nothing follows.

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Float32Array(Math.round(sampleRate / 10));
    this.filled = 0;
    this.port.onmessage = () => {
      this.port.postMessage(this.piece.slice(0, this.filled));
      this.port.postMessage(null);
    };
  }

  process([[samples]]) {
    for (const value of samples ?? []) { // nothing while the microphone is being connected
      this.piece[this.filled++] = value;
      if (this.filled === this.piece.length) {
        this.port.postMessage(this.piece);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
