// Runs on the audio thread: turns what the microphone hears into 16-bit little-endian samples.

const BATCH = 4096;

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.begin();
    this.port.onmessage = () => {
      this.hand();
      this.port.postMessage({ ended: true });
      this.ended = true;
    };
  }

  begin() {
    this.view = new DataView(new ArrayBuffer(2 * BATCH));
    this.length = 0;
    this.peak = 0;
  }

  hand() {
    if (this.length === 0) return;
    const samples = this.view.buffer.slice(0, 2 * this.length);
    this.port.postMessage({ samples, peak: this.peak }, [samples]);
    this.begin();
  }

  process([channels]) {
    if (this.ended) return false;
    if (!channels || channels.length === 0) return true;
    for (let index = 0; index < channels[0].length; index++) {
      let sum = 0;
      for (const channel of channels) sum += channel[index];
      const sample = Math.max(-1, Math.min(1, sum / channels.length));
      this.peak = Math.max(this.peak, Math.abs(sample));
      this.view.setInt16(2 * this.length, Math.round(sample * 32767), true);
      this.length++;
      if (this.length === BATCH) this.hand();
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
