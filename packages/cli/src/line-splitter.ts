/**
 * Cuts a byte stream into lines that keep their terminator (`\n`; a `\r` before it is a byte like any other). What comes
 * after the last terminator is a line too. Bytes are never decoded. Bound: a line above `bytesMax` is `too_large`, so at
 * most that much and one chunk is held.
 */
import { type Bytes, concat, EMPTY, SealpostError } from '@sealpost/protocol'

const LINE_FEED = 0x0a

export type LineSplitter = {
  /** The lines that this chunk completes, one by one: those before a line that is too long come before its error. */
  push(chunk: Bytes): Iterable<Bytes>
  /** What is left when the stream has ended. */
  end(): Bytes[]
}

export function createLineSplitter(bytesMax: number): LineSplitter {
  let held: Bytes[] = []
  let heldBytes = 0
  let number = 1

  const refuseLong = (bytes: number): void => {
    if (bytes > bytesMax)
      throw new SealpostError(
        'too_large',
        `line ${number} is longer than the limit of ${bytesMax} bytes for one event; the lines before it are kept`,
        { hint: 'cut that line into shorter ones, then send from it on' },
      )
  }
  const take = (last: Bytes): Bytes => {
    const line = concat(...held, last)
    held = []
    heldBytes = 0
    number += 1
    return line
  }

  return {
    *push(chunk) {
      let from = 0
      for (let at = chunk.indexOf(LINE_FEED); at !== -1; at = chunk.indexOf(LINE_FEED, from)) {
        refuseLong(heldBytes + at + 1 - from)
        const last = chunk.subarray(from, at + 1)
        from = at + 1
        yield take(last)
      }
      if (from === chunk.length) return
      refuseLong(heldBytes + chunk.length - from)
      held.push(Uint8Array.from(chunk.subarray(from)))
      heldBytes += chunk.length - from
    },
    end: () => (heldBytes === 0 ? [] : [take(EMPTY)]),
  }
}
