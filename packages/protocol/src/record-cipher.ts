/**
 * The record layer of a session: one object per direction and generation of keys (protocol.md §4).
 *
 *   frame = gen (1 byte) || AES-256-GCM(k_dir, iv = 00000000 || u64be(counter), aad = gen, message)
 *
 * Invariant: the counter starts at 0 and grows by one per frame on both sides, so a lost, doubled, reordered or foreign frame
 * does not open; after one failure a reader opens nothing more. Bound: 2^32 frames per key (a rekey is due after 2^20).
 * Generic in the key: over `SyncAesGcmKey` every answer is synchronous, in type as well.
 */
import { type Bytes, writeU64, viewOf } from './bytes.ts'
import type { AesGcmKey } from './crypto.ts'
import { SealpostError } from './errors.ts'

const FRAMES_MAX = 2 ** 32
const TAG_BYTES = 16

/** What a frame adds to its message, in bytes. */
export const FRAME_OVERHEAD_BYTES = 1 + TAG_BYTES

type Answer<K extends AesGcmKey> = ReturnType<K['seal']>

/** Writes one direction. */
export class SealCipher<K extends AesGcmKey = AesGcmKey> {
  readonly gen: number
  readonly #key: K
  readonly #head: Bytes
  #counter = 0

  constructor(key: K, gen: number) {
    this.#key = key
    this.gen = gen
    this.#head = Uint8Array.of(gen)
  }

  /** Frames sealed so far. */
  get counter(): number {
    return this.#counter
  }

  /** The number of a frame is taken at the call: frames are to be sent in the order of the calls. */
  seal(message: Bytes): Answer<K> {
    if (this.#counter >= FRAMES_MAX) throw new SealpostError('internal', 'the session keys are used up')
    return this.#key.seal(ivOf(this.#counter++), this.#head, message, this.#head) as Answer<K>
  }
}

/** Reads one direction. */
export class OpenCipher<K extends AesGcmKey = AesGcmKey> {
  readonly gen: number
  readonly #key: K
  readonly #head: Bytes
  #counter = 0
  #failed = false

  constructor(key: K, gen: number) {
    this.#key = key
    this.gen = gen
    this.#head = Uint8Array.of(gen)
  }

  /** Frames opened, or being opened, so far. */
  get counter(): number {
    return this.#counter
  }

  /** Frames are to be given in the order of their arrival. Throws (or rejects with) `invalid_message` or `decrypt_failed`; either ends the session. */
  open(frame: Bytes): Answer<K> {
    if (this.#failed) throw new SealpostError('decrypt_failed', 'an earlier frame did not open')
    if (frame.length < FRAME_OVERHEAD_BYTES || genOf(frame) !== this.gen || this.#counter >= FRAMES_MAX) {
      this.#failed = true
      throw new SealpostError('invalid_message', 'the frame is not of this generation of keys')
    }
    const iv = ivOf(this.#counter++)
    try {
      const opened = this.#key.open(iv, this.#head, frame.subarray(1))
      return (opened instanceof Promise ? opened.catch((cause: unknown) => this.#fail(cause)) : opened) as Answer<K>
    } catch (cause) {
      return this.#fail(cause)
    }
  }

  #fail(cause: unknown): never {
    this.#failed = true
    throw cause
  }
}

/** The generation of keys that a frame names; −1 for an empty one. */
export function genOf(frame: Bytes): number {
  return frame[0] ?? -1
}

function ivOf(counter: number): Bytes {
  const iv = new Uint8Array(12)
  writeU64(viewOf(iv), 4, counter)
  return iv
}
