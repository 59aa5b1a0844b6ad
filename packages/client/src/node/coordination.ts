/**
 * The processes of one home (`Coordination`): whoever gets the lock leads and listens on the home's Unix socket, the others
 * connect to it. The lock decides, the socket only carries: a socket file without a lock is stale and is replaced.
 *
 * Frames: leader → follower `hello`, `wake`, `answer {id}`, `failure {id, code, message}`; follower → leader `wake`,
 * `request {id, head}`, `cancel {id}`. Bounds: 64 followers, 64 open requests each, frames as in `frame-stream.ts`.
 */
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { SealpostError, diskError } from '@sealpost/protocol'
import type { Coordination, LeaderLink, LeaderSeat } from '../ports.ts'
import { FILES } from './home-folder.ts'
import { connectToLeader } from './leader-link.ts'
import { type LeaderLock, takeLeaderLock } from './leader-lock.ts'
import { createLeaderSeat } from './leader-seat.ts'
import { openSocketPath, type SocketPath } from './socket-path.ts'

/** A leader that is just coming or going is waited for so long. */
const LEAD_MS = 10_000
const RETRY_MS = 25
const FOLLOWERS_MAX = 64

export type NodeCoordination = Coordination & { close(): Promise<void> }

export function createCoordination(folder: string): NodeCoordination {
  const open = new Set<LeaderSeat | LeaderLink>()

  const lead = async (signal?: AbortSignal): Promise<LeaderSeat | LeaderLink> => {
    const until = performance.now() + LEAD_MS
    for (;;) {
      if (signal?.aborted === true) throw new SealpostError('aborted', 'ended by the caller')
      const lock = takeLeaderLock(join(folder, FILES.lock))
      const found = lock === null ? await connectToLeader(folder, until - performance.now(), signal) : await takeSeat(folder, lock)
      if (found !== null) {
        open.add(found)
        if (found.role === 'follower') void found.ended.then(() => open.delete(found))
        return found
      }
      if (performance.now() > until)
        throw new SealpostError('timeout', 'another process of this home does not answer; end it, or wait until it is done')
      await sleep(RETRY_MS)
    }
  }

  return {
    lead,
    close: async () => {
      for (const one of open) await (one.role === 'leader' ? one.resign() : one.close())
      open.clear()
    },
  }
}

async function takeSeat(folder: string, lock: LeaderLock): Promise<LeaderSeat> {
  let place: SocketPath | undefined
  try {
    place = openSocketPath(folder, FILES.socket)
    if (process.platform !== 'win32') rmSync(place.path, { force: true })
    const server = createServer()
    server.maxConnections = FOLLOWERS_MAX
    await listen(server, place.path)
    if (process.platform !== 'win32') chmodSync(place.path, 0o600)
    const { release } = place
    return createLeaderSeat(server, () => {
      release()
      lock.release()
    })
  } catch (cause) {
    place?.release()
    lock.release()
    if (cause instanceof SealpostError) throw cause
    throw diskError(`no socket can be made in ${folder}`, cause)
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => {
      server.off('error', reject)
      resolve()
    })
  })
}
