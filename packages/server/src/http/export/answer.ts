/**
 * Lines over an HTTP answer, written no faster than they are read, for as long as whoever asked for them may have them. That is
 * asked again on every tick: nothing is written that was not allowed in the last second, and an answer that is ended takes what the
 * kernel still holds of it along (C4).
 *
 * Bound: what is queued is that of `outflow.ts`, as for a socket; who takes nothing for `stalledMs` is cut off.
 */
import type { ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { createOutflow } from '../../relay/load/outflow.ts'
import type { Relay } from '../../relay/relay.ts'
import type { Media } from '../contract.ts'

/** Whose bounds hold, and with whose end the answer ends. */
export type Host = Pick<Relay, 'limits' | 'outbound'> & { sessions: Pick<Relay['sessions'], 'isDraining'> }

export type LinesAsk = {
  media: Media
  lines: AsyncIterable<string>
  /** ms until the answer ends, whole or not. */
  left_ms: number
  /** Whether the one who asked may still have it. */
  isAllowed(): Promise<boolean>
  /** Told why the answer was broken off, unless its reader left: its last line is missing, and whoever reads it sees that. */
  brokenOff(reason: unknown): void
}

const ALLOWED_MS = 1_000
const NO_SOCKET = { bytesWritten: 0, writableLength: 0 }

/** Takes the response over. Resolves when all is handed to it, or nothing more will be; never rejects. */
export async function answerLines(
  { limits, outbound, sessions }: Host,
  response: ServerResponse,
  { media, lines, left_ms, isAllowed, brokenOff }: LinesAsk,
): Promise<void> {
  if (response.destroyed) return
  let allowedAt = performance.now()
  let endsAt = allowedAt + left_ms
  let asking = false
  let full = false
  let wake = (): void => {}
  const outflow = createOutflow({
    buffered: () => (response.destroyed ? 0 : response.writableLength),
    socket: response.socket ?? NO_SOCKET,
    limits,
    outbound,
    changed(is) {
      full = is
      wake()
    },
  })
  const clock = setInterval(tick, limits.tickMs)

  response.on('error', () => {})
  response.on('drain', () => outflow.check(performance.now()))
  response.once('close', () => {
    clearInterval(clock)
    outflow.release()
    wake()
  })
  response.writeHead(200, { 'content-type': media })
  try {
    for await (const line of lines) {
      while (mustWait())
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      if (response.destroyed) return
      response.write(line)
      outflow.check(performance.now())
    }
    response.end()
  } catch (error) {
    breakOff(error)
  }

  function mustWait(): boolean {
    return !response.destroyed && (full || performance.now() - allowedAt > ALLOWED_MS)
  }

  function tick(): void {
    const now = performance.now()
    outflow.check(now)
    // what is nearly through may come to its end, as what is in flight on a socket
    if (sessions.isDraining()) endsAt = Math.min(endsAt, now + limits.drainSpreadMs + limits.drainMs)
    if (outflow.isStalled(now)) return breakOff('nothing was taken')
    if (now >= endsAt) return breakOff('its time is over')
    if (!asking) void ask(now)
  }

  async function ask(now: number): Promise<void> {
    asking = true
    try {
      if (!(await isAllowed())) return breakOff('whoever asked may no longer have it')
      allowedAt = now
      wake()
    } catch (error) {
      breakOff(error)
    } finally {
      asking = false
    }
  }

  function breakOff(reason: unknown): void {
    if (response.destroyed) return
    brokenOff(reason)
    if (response.socket instanceof Socket) response.socket.resetAndDestroy()
    else response.destroy()
  }
}
