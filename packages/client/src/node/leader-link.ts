/** A follower's end of the home's socket (`LeaderLink`). */
import { createConnection, type Socket } from 'node:net'
import { ERROR, type ErrorCode, SealpostError } from '@sealpost/protocol'
import type { HomeMessage, LeaderLink } from '../ports.ts'
import { encodeFrame, type Frame, readFrames } from './frame-stream.ts'
import { FILES } from './home-folder.ts'
import { openSocketPath } from './socket-path.ts'

type Waiting = { resolve(answer: HomeMessage): void; reject(error: unknown): void }

/** The link once the leader has said hello; null when nobody listens, or not in time. */
export async function connectToLeader(folder: string, wait_ms: number, signal?: AbortSignal): Promise<LeaderLink | null> {
  const place = openSocketPath(folder, FILES.socket)
  const socket = createConnection(place.path)
  const hello = Promise.withResolvers<boolean>()
  const link = createLeaderLink(socket, () => hello.resolve(true))
  const giveUp = (): void => hello.resolve(false)
  const timer = setTimeout(giveUp, Math.max(wait_ms, 100))
  signal?.addEventListener('abort', giveUp, { once: true })
  void link.ended.then(giveUp)
  const connected = await hello.promise
  clearTimeout(timer)
  signal?.removeEventListener('abort', giveUp)
  place.release()
  if (connected) return link
  await link.close()
  return null
}

function createLeaderLink(socket: Socket, greeted: () => void): LeaderLink {
  const waiting = new Map<number, Waiting>()
  const ended = Promise.withResolvers<void>()
  let listener = (): void => {}
  let woken = false
  let waking = false
  let nextId = 1

  const send = (head: Record<string, unknown>): void => {
    if (socket.writable) socket.write(encodeFrame(head))
  }

  socket.on('error', () => {})
  socket.on('close', () => {
    for (const { reject } of waiting.values()) reject(gone())
    waiting.clear()
    ended.resolve()
  })
  readFrames(socket, take)

  return {
    role: 'follower',
    wake() {
      if (waking) return
      waking = true
      setImmediate(() => {
        waking = false
        send({ kind: 'wake' })
      })
    },
    onWake(call) {
      listener = call
    },
    request(message, signal) {
      if (signal?.aborted === true) return Promise.reject(new SealpostError('aborted', 'ended by the caller'))
      if (!socket.writable) return Promise.reject(gone())
      const id = nextId++
      const frame = encodeFrame({ kind: 'request', id, head: message.head }, message.body)
      return new Promise<HomeMessage>((resolve, reject) => {
        const abort = (): void => {
          waiting.delete(id)
          send({ kind: 'cancel', id })
          reject(new SealpostError('aborted', 'ended by the caller'))
        }
        const settle = (): void => signal?.removeEventListener('abort', abort)
        signal?.addEventListener('abort', abort, { once: true })
        waiting.set(id, {
          resolve(answer) {
            settle()
            resolve(answer)
          },
          reject(error) {
            settle()
            reject(error)
          },
        })
        socket.write(frame)
      })
    },
    ended: ended.promise,
    close() {
      socket.destroy()
      return ended.promise
    },
  }

  function take({ head, body }: Frame): void {
    if (head.kind === 'hello') return greeted()
    if (head.kind === 'wake') {
      if (woken) return
      woken = true
      setImmediate(() => {
        woken = false
        listener()
      })
      return
    }
    const one = typeof head.id === 'number' ? waiting.get(head.id) : undefined
    // The answer to a request that was given up.
    if (one === undefined) return
    waiting.delete(head.id as number)
    if (head.kind === 'answer' && typeof head.head === 'object' && head.head !== null)
      one.resolve({ head: head.head as Record<string, unknown>, body })
    else one.reject(toError(head))
  }
}

function toError(head: Record<string, unknown>): SealpostError {
  const code = typeof head.code === 'string' && Object.hasOwn(ERROR, head.code) ? (head.code as ErrorCode) : 'internal'
  return new SealpostError(code, typeof head.message === 'string' ? head.message : 'the leading process of this home failed', {
    hint: typeof head.hint === 'string' ? head.hint : undefined,
  })
}

function gone(): SealpostError {
  return new SealpostError('unreachable', 'the leading process of this home has ended', { hint: 'run the command again' })
}
