/** A command's time with the device of a home: opened, watched, closed whatever happens. */
import { Sealpost } from '@sealpost/client'
import { openHome } from '@sealpost/client/node'
import { SealpostError } from '@sealpost/protocol'
import type { Context } from './command.ts'
import { type ConnectionWatch, watchConnection } from './connection-watch.ts'
import { say } from './output.ts'

export type Session = { sealpost: Sealpost; watch: ConnectionWatch; signal: AbortSignal }

/** Opens the device, runs `work`, closes. Throws what `Sealpost.open` or `work` throw. */
export async function withSession<T>({ home, signal }: Context, work: (session: Session) => Promise<T>): Promise<T> {
  const opened = await openHome(home)
  const sealpost = await Sealpost.open({ home: opened, signal }).catch(async (error: unknown) => {
    await opened.close()
    throw error
  })
  // A follower asks its leader how things stand.
  if (sealpost.role === 'follower') await sealpost.status()
  const watch = watchConnection(sealpost)
  try {
    return await work({ sealpost, watch, signal })
  } finally {
    watch.close()
    await sealpost.close()
  }
}

/**
 * Sends what an earlier command left in the outbox. Gives up quietly when the server cannot be reached: the command itself
 * says so. A terminal error is thrown.
 */
export async function sendLeftovers({ sealpost, watch, signal }: Session): Promise<void> {
  const { outbox } = await sealpost.status()
  if (outbox.pending === 0) return
  try {
    await watch.during((ended) => sealpost.flush({ signal: ended }), signal)
  } catch (error) {
    if (error instanceof SealpostError && (error.code === 'unreachable' || error.code === 'aborted')) return
    throw error
  }
  const left = (await sealpost.status()).outbox.pending
  if (outbox.pending > left) say(`sent ${outbox.pending - left} from the outbox`)
}
