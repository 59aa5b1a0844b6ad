/** A command's time with a home, and with the device in it: opened, watched, closed whatever happens. */
import { existsSync } from 'node:fs'
import { readdir, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Device, type Home, Sealpost } from '@sealpost/client'
import { openHome } from '@sealpost/client/node'
import { SealpostError } from '@sealpost/protocol'
import type { Context } from './command.ts'
import { type ConnectionWatch, watchConnection } from './connection-watch.ts'
import { say } from './output.ts'

/** What earlier commands had left in the outbox when this one began. */
type Left = { pending: number; set_aside: number }

export type Session = { sealpost: Sealpost; watch: ConnectionWatch; signal: AbortSignal; left: Left }

/**
 * Opens or makes the home for a device that comes into it, runs `work`, closes. Where that fails, a home that was not there before and
 * holds nothing yet is taken away again.
 */
export async function withHome<T>(path: string, work: (home: Home) => Promise<T>): Promise<T> {
  const isNew = !existsSync(path)
  const home = await openHome(path)
  let isUnused = false
  try {
    return await work(home)
  } catch (error) {
    isUnused =
      isNew &&
      (await home.store.readIdentity().then(
        (identity) => identity === null,
        () => false,
      ))
    throw error
  } finally {
    await home.close()
    if (isUnused) await removeUnused(path).catch(() => undefined)
  }
}

/** SQLite keeps files beside the state for as long as another process has it open: then the home is that one's. */
async function removeUnused(path: string): Promise<void> {
  const names = await readdir(path)
  if (names.length !== 1 || names[0] !== 'sealpost.sqlite') return
  await rm(join(path, 'sealpost.sqlite'))
  await rmdir(path)
}

/** Opens the device, runs `work`, closes. `connect` false: it only reads what is here. Throws what `Sealpost.open` or `work` throw. */
export async function withSession<T>({ home, signal }: Context, work: (session: Session) => Promise<T>, connect = true): Promise<T> {
  if (!existsSync(home)) throw new SealpostError('not_paired', 'this home holds no device')
  const opened = await openHome(home)
  const { sealpost, left } = await openDevice(opened, connect, signal).catch(async (error: unknown) => {
    await opened.close()
    throw error
  })
  // A follower asks its leader how things stand.
  if (connect && sealpost.role === 'follower') await sealpost.status()
  const watch = watchConnection(sealpost)
  try {
    return await work({ sealpost, watch, signal, left })
  } finally {
    watch.close()
    await sealpost.close()
  }
}

async function openDevice(home: Home, connect: boolean, signal: AbortSignal): Promise<{ sealpost: Sealpost; left: Left }> {
  // counted before the engine runs: it may have sent everything by the time somebody asks
  const left = await home.store.countOutbox()
  return { sealpost: await Sealpost.open({ home, connect, signal }), left }
}

/** The devices as the server has them now: another device may have added one a moment ago. Throws `unreachable` when it cannot be asked. */
export async function readDevices({ sealpost, watch, signal }: Session): Promise<Device[]> {
  await watch.during((ended) => sealpost.refreshDevices({ signal: ended }), signal)
  return sealpost.devices()
}

/** Failures that keep a command from the newest device list and not from showing the one that is known. */
const SHOWN_ALL_THE_SAME: ReadonlySet<string> = new Set(['unreachable', 'timeout', 'log_withheld'])

/** For commands that show what is known in any case: connects, sends what was left, reads the device list. Null, or why the list may be old. */
export async function catchUp(session: Session, ms: number): Promise<SealpostError | null> {
  const { watch, signal } = session
  const connected = await watch.settle(ms, signal)
  if (watch.failure !== null) throw watch.failure
  if (!connected) return watch.awayBecause()
  await sendLeftovers(session)
  try {
    await readDevices(session)
    return null
  } catch (error) {
    if (watch.failure !== null || !(error instanceof SealpostError) || !SHOWN_ALL_THE_SAME.has(error.code)) throw error
    return error
  }
}

/** No command waits longer for what an earlier one left behind; the engine goes on with it meanwhile. */
const LEFTOVERS_MS = 5_000

/**
 * Sends what an earlier command left in the outbox, for a while and until `done`. What stays there is no failure of this
 * command; the terminal error of the engine is, and is thrown.
 */
export async function sendLeftovers({ sealpost, watch, signal, left }: Session, done?: AbortSignal): Promise<void> {
  if (left.pending === 0) return
  const late = AbortSignal.timeout(LEFTOVERS_MS)
  const ended = AbortSignal.any(done === undefined ? [signal, late] : [signal, late, done])
  try {
    await watch.during((gone) => sealpost.flush({ signal: gone }), ended, 'acks')
  } catch (error) {
    if (watch.failure !== null || !(error instanceof SealpostError)) throw error
  }
  const { pending, set_aside } = (await sealpost.status()).outbox
  const aside = Math.max(0, set_aside - left.set_aside)
  const sent = left.pending - pending - aside
  if (sent > 0) say(`sent ${sent} from the outbox`)
  sayAside(aside)
}

/** What an earlier command left in the outbox was not taken. */
export function sayAside(count: number): void {
  if (count > 0) say(`sealpost: ${count} in the outbox ${count === 1 ? 'was' : 'were'} refused and set aside\n  sealpost outbox shows why`)
}
