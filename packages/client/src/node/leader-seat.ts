/** The leader's end of the home's socket (`LeaderSeat`). */
import type { Server, Socket } from 'node:net'
import { SealpostError } from '@sealpost/protocol'
import type { HomeMessage, LeaderSeat } from '../ports.ts'
import { encodeFrame, type Frame, readFrames } from './frame-stream.ts'

const REQUESTS_MAX = 64

type Answer = (request: HomeMessage, signal: AbortSignal) => Promise<HomeMessage>
type Follower = { socket: Socket; requests: Map<number, AbortController>; wakes: boolean }

/** `vacate` gives lock and path back; it is called once, after the socket was closed. */
export function createLeaderSeat(server: Server, vacate: () => void): LeaderSeat {
  const followers = new Set<Follower>()
  let listener = (): void => {}
  let woken = false
  let resigned: Promise<void> | undefined
  const answerer = Promise.withResolvers<Answer>()

  server.on('error', () => {})
  server.on('connection', (socket) => {
    const follower: Follower = { socket, requests: new Map(), wakes: false }
    followers.add(follower)
    socket.on('error', () => {})
    socket.on('close', () => {
      followers.delete(follower)
      for (const request of follower.requests.values()) request.abort()
    })
    readFrames(socket, (frame) => take(follower, frame))
    send(socket, { kind: 'hello' })
  })

  return {
    role: 'leader',
    wake() {
      for (const follower of followers) {
        // One wake on its way stands for all until it is written.
        if (follower.wakes || !follower.socket.writable) continue
        follower.wakes = true
        setImmediate(() => {
          follower.socket.write(encodeFrame({ kind: 'wake' }))
          follower.wakes = false
        })
      }
    },
    onWake(call) {
      listener = call
    },
    onRequest(answer) {
      answerer.resolve(answer)
    },
    resign() {
      resigned ??= new Promise<void>((resolve) => {
        server.close(() => resolve())
        for (const { socket } of followers) socket.destroy()
        // `close` has removed the socket file by now: only then may another process lead and make its own.
        vacate()
      })
      return resigned
    },
  }

  function take(follower: Follower, { head, body }: Frame): void {
    const { kind, id } = head
    if (kind === 'wake') {
      if (woken) return
      woken = true
      setImmediate(() => {
        woken = false
        listener()
      })
      return
    }
    if (typeof id !== 'number') throw new SealpostError('invalid_message', 'a request has an id')
    if (kind === 'cancel') {
      follower.requests.get(id)?.abort()
      return
    }
    const request = head.head
    if (kind !== 'request' || typeof request !== 'object' || request === null || follower.requests.size >= REQUESTS_MAX)
      throw new SealpostError('invalid_message', 'an unknown or surplus frame')
    const controller = new AbortController()
    follower.requests.set(id, controller)
    void answerer.promise
      .then((answer) => answer({ head: request as Record<string, unknown>, body }, controller.signal))
      .then((answer) => encodeFrame({ kind: 'answer', id, head: answer.head }, answer.body))
      .catch((error: unknown) => encodeFrame({ kind: 'failure', id, ...describe(error) }))
      .then((bytes) => {
        follower.requests.delete(id)
        if (follower.socket.writable) follower.socket.write(bytes)
      })
  }
}

function send(socket: Socket, head: Record<string, unknown>): void {
  if (socket.writable) socket.write(encodeFrame(head))
}

function describe(error: unknown): { code: string; message: string; hint?: string } {
  return error instanceof SealpostError
    ? { code: error.code, message: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) }
    : { code: 'internal', message: 'the leading process of this home failed' }
}
