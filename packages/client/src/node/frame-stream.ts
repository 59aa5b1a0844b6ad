/**
 * Frames between the processes of a home, over a Unix socket that only its owner can reach:
 *
 *   u32be length of what follows | u32be length of the head | head (JSON) | body
 *
 * Bounds: a frame is at most 2 MiB and 4 KiB; a longer one, or one that cannot be parsed, ends the connection.
 */
import type { Socket } from 'node:net'
import { type Bytes, concat, EMPTY, parseJson, SealpostError, utf8, viewOf } from '@sealpost/protocol'

export const MESSAGE_BYTES_MAX = 2 * 1_048_576
const FRAME_BYTES_MAX = MESSAGE_BYTES_MAX + 4_096

export type Frame = { head: Record<string, unknown>; body: Bytes }

export function encodeFrame(head: Record<string, unknown>, body: Bytes = EMPTY): Bytes {
  const json = utf8(JSON.stringify(head))
  const length = 4 + json.length + body.length
  if (length > FRAME_BYTES_MAX) throw new SealpostError('too_large', `a request inside the home has at most ${MESSAGE_BYTES_MAX} bytes`)
  const prefix = new Uint8Array(8)
  viewOf(prefix).setUint32(0, length)
  viewOf(prefix).setUint32(4, json.length)
  return concat(prefix, json, body)
}

/** Calls `take` for each frame in order; a bad one destroys the socket. */
export function readFrames(socket: Socket, take: (frame: Frame) => void): void {
  let held: Bytes[] = []
  let heldBytes = 0
  let wanted = 8
  socket.on('data', (buffer: Buffer) => {
    const chunk = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length)
    held.push(chunk)
    heldBytes += chunk.length
    if (heldBytes < wanted) return
    const bytes = held.length === 1 ? chunk : concat(...held)
    let at = 0
    try {
      for (;;) {
        wanted = 8
        if (bytes.length - at < 8) break
        const length = viewOf(bytes).getUint32(at)
        if (length < 4 || length > FRAME_BYTES_MAX) throw new SealpostError('invalid_message', 'a frame has a wrong length')
        wanted = 4 + length
        if (bytes.length - at < wanted) break
        const frame = decodeFrame(bytes.subarray(at + 4, at + wanted))
        at += wanted
        take(frame)
      }
    } catch {
      socket.destroy()
      return
    }
    held = at === bytes.length ? [] : [bytes.subarray(at)]
    heldBytes = bytes.length - at
  })
}

function decodeFrame(bytes: Bytes): Frame {
  const length = viewOf(bytes).getUint32(0)
  if (length > bytes.length - 4) throw new SealpostError('invalid_message', 'the head is longer than the frame')
  const head = parseJson(bytes.subarray(4, 4 + length))
  if (typeof head !== 'object' || head === null || Array.isArray(head)) throw new SealpostError('invalid_message', 'a head is an object')
  return { head: head as Record<string, unknown>, body: bytes.slice(4 + length) }
}
