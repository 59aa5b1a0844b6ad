/**
 * The wire between the workers of one machine (protocol.md §7): each has a line to the primary, which keeps who wants which topic and
 * passes a message on to those who do, but for the one it is from. A line is a pipe of its own beside the channel of the processes, so
 * that a message is bytes all the way, and does not wait for connections that are handed over. Big-endian:
 *
 *   frame = u32 length of the message | u8 kind | u64 topic | message        kind: 0 a hint, 1 the topic is wanted, 2 no longer
 *
 * Invariant: nothing blocks, and a topic that is wanted is told in the end. Bound: `WAITING_BYTES_MAX` for each end of a line, above which
 * hints are lost. What comes together in one turn of a process is written together.
 */
import { viewOf, writeU64 } from '@sealpost/protocol'
import type { Duplex } from 'node:stream'
import type { OpenWire } from '../bus/wire.ts'

export const WAITING_BYTES_MAX = 8 * 1_048_576
/** Topics are told again so soon when there is no room for them now. */
const AGAIN_MS = 50
const HEAD_BYTES = 13
const KIND = { hint: 0, join: 1, part: 2 } as const
type Kind = (typeof KIND)[keyof typeof KIND]

/** `line`: to the primary. */
export function openIpcWire(line: Duplex): OpenWire {
  return (listener) => {
    const out = createWriter(line)
    const topics = new Map<number, Kind>()
    let telling = false
    let closed = false

    function want(topic: number, kind: Kind): void {
      topics.set(topic, kind)
      if (telling || closed) return
      telling = true
      setImmediate(tell)
    }
    function tell(): void {
      if (out.isFull()) return void setTimeout(tell, AGAIN_MS).unref()
      telling = false
      if (!closed) for (const [topic, kind] of topics) out.write(makeHead(kind, topic, 0))
      topics.clear()
    }

    const read = createReader((kind, topic, frame) => {
      if (kind === KIND.hint && !closed) listener.received(topic, frame.subarray(HEAD_BYTES))
    })
    // that the primary is gone is told elsewhere
    line.on('error', () => {})
    line.on('data', read)
    // with the end of the line this process ends
    listener.changed(true)
    return {
      publish(topic, message) {
        if (closed || out.isFull()) return
        const bytes = message()
        out.write(Buffer.concat([makeHead(KIND.hint, topic, bytes.length), bytes]))
      },
      subscribe: (topic) => want(topic, KIND.join),
      unsubscribe: (topic) => want(topic, KIND.part),
      close() {
        closed = true
        line.off('data', read)
        return Promise.resolve()
      },
    }
  }
}

export type WireHub = {
  /** The line to one more worker; forgotten when it closes. */
  add(line: Duplex): void
  /** That some worker wants. */
  topics(): number
}

type Writer = ReturnType<typeof createWriter>

export function createWireHub(): WireHub {
  const topics = new Map<number, Set<Writer>>()

  function part(topic: number, member: Writer): void {
    const members = topics.get(topic)
    members?.delete(member)
    if (members?.size === 0) topics.delete(topic)
  }

  return {
    topics: () => topics.size,
    add(line) {
      const self = createWriter(line)
      const wanted = new Set<number>()
      let gone = false
      const read = createReader((kind, topic, frame) => {
        if (gone) return
        if (kind === KIND.hint) {
          for (const member of topics.get(topic) ?? []) if (member !== self && !member.isFull()) member.write(frame)
        } else if (kind === KIND.join) {
          topics.set(topic, (topics.get(topic) ?? new Set()).add(self))
          wanted.add(topic)
        } else {
          part(topic, self)
          wanted.delete(topic)
        }
      })
      line.on('error', () => {})
      line.on('data', read)
      line.once('close', () => {
        gone = true
        for (const topic of wanted) part(topic, self)
      })
    },
  }
}

function makeHead(kind: Kind, topic: number, length: number): Buffer {
  const head = Buffer.alloc(HEAD_BYTES)
  head.writeUInt32BE(length)
  head.writeUInt8(kind, 4)
  writeU64(viewOf(head), 5, topic)
  return head
}

/** Takes bytes as they come, and gives whole frames, which are views. */
function createReader(take: (kind: number, topic: number, frame: Buffer) => void): (chunk: Buffer) => void {
  let parts: Buffer[] = []
  let have = 0
  let wanted = HEAD_BYTES

  return (chunk) => {
    parts.push(chunk)
    have += chunk.length
    if (have < wanted) return
    const bytes = parts.length === 1 ? chunk : Buffer.concat(parts, have)
    let at = 0
    for (wanted = HEAD_BYTES; bytes.length - at >= wanted; wanted = HEAD_BYTES) {
      wanted += bytes.readUInt32BE(at)
      if (bytes.length - at < wanted) break
      take(bytes.readUInt8(at + 4), bytes.readUInt32BE(at + 5) * 2 ** 32 + bytes.readUInt32BE(at + 9), bytes.subarray(at, at + wanted))
      at += wanted
    }
    parts = at < bytes.length ? [bytes.subarray(at)] : []
    have = bytes.length - at
  }
}

/** Writes the frames of one turn at once. */
function createWriter(line: Duplex): { write(frame: Buffer): void; isFull(): boolean } {
  let waiting: Buffer[] = []
  let bytes = 0

  function flush(): void {
    const [first] = waiting
    if (first !== undefined && !line.destroyed) line.write(waiting.length === 1 ? first : Buffer.concat(waiting, bytes))
    waiting = []
    bytes = 0
  }

  return {
    isFull: () => line.writableLength + bytes > WAITING_BYTES_MAX,
    write(frame) {
      if (waiting.length === 0) setImmediate(flush)
      waiting.push(frame)
      bytes += frame.length
    },
  }
}
