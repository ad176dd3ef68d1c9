// From the browser's audio to what the server takes: one channel, 16 kHz, 16 bits, base64.

/** Hz. What models hear; a clip that has this rate already arrives bit by bit as it is in its file. */
export const RATE = 16_000;

const ZEROS = 32; // zero crossings of the filter on either side: enough for 60 dB at a transition of 8 % of the band

/** Float samples to 16 bits. By 32768, not 32767: what was 16 bits before comes out as the same bits. */
export function toPcm16(samples) {
  return Int16Array.from(samples, (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32768))));
}

/** 16-bit samples as base64 of their bytes, little-endian as all machines that browsers run on. */
export function toBase64(pcm) {
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) { // all at once would be too many arguments
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(text);
}

/** All channels of an AudioBuffer as one. */
export function mono(buffer) {
  const mixed = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((value, index) => { mixed[index] += value / buffer.numberOfChannels; });
  }
  return mixed;
}

/**
 * Audio that comes in pieces, from one rate to another: a windowed sinc filter, one kernel for each place that an output can
 * have between two inputs. Any split gives the same samples. The last two milliseconds stay inside.
 */
export class Resampler {
  constructor(from, to) {
    const divisor = greatestCommonDivisor(from, to);
    this.step = from / divisor;
    this.phases = to / divisor;
    this.reach = Math.ceil(ZEROS * Math.max(1, from / to));
    const cutoff = 0.92 * Math.min(1, to / from); // of the input's band; the rest is room for the filter to fall in
    this.kernels = Array.from({ length: this.phases }, (_, phase) => kernel(phase / this.phases, this.reach, cutoff));
    this.phase = 0;
    this.input = new Float32Array(this.reach - 1); // silence before the first sample
  }

  push(samples) {
    const input = new Float32Array(this.input.length + samples.length);
    input.set(this.input);
    input.set(samples, this.input.length);
    const output = [];
    let start = 0;
    while (start + 2 * this.reach <= input.length) {
      output.push(this.kernels[this.phase].reduce((sum, weight, index) => sum + weight * input[start + index], 0));
      this.phase += this.step;
      start += Math.floor(this.phase / this.phases);
      this.phase %= this.phases;
    }
    this.input = input.slice(start);
    return Float32Array.from(output);
  }
}

function kernel(fraction, reach, cutoff) {
  const weights = Array.from({ length: 2 * reach }, (_, index) => {
    const distance = index - (reach - 1) - fraction;
    const angle = Math.PI * cutoff * distance;
    return (angle === 0 ? 1 : Math.sin(angle) / angle) * Math.cos((Math.PI * distance) / (2 * reach)) ** 2;
  });
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return Float64Array.from(weights, (weight) => weight / sum);
}

function greatestCommonDivisor(a, b) {
  return b ? greatestCommonDivisor(b, a % b) : a;
}
