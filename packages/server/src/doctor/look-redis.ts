/** Looks at Redis as a relay uses it: a message to itself over the channels of a relay of its own, which nobody else has. */
import { randomBytes } from 'node:crypto'
import { Redis } from 'ioredis'
import { isLoopback } from '@sealpost/protocol'
import { pino } from 'pino'
import { openRedis, type RedisConfig, type RedisLink } from '../bus/redis-link.ts'
import { openRedisWire } from '../bus/redis-wire.ts'
import type { RedisServers } from './facts.ts'

const quiet = pino({ level: 'silent' })

/** Ends with the signal, and then tells that nothing came. */
export async function lookAtRedis(config: RedisConfig, signal: AbortSignal): Promise<RedisServers> {
  const urls = config.urls.map((url) => new URL(url))
  const over = urls.every(({ hostname }) => isLoopback(hostname)) ? ('loopback' as const) : ('network' as const)
  const where = { mode: config.mode, over, tls: urls.every(({ protocol }) => protocol === 'rediss:') }
  const link = openRedis(config, quiet)
  const heard = Promise.withResolvers<boolean>()
  signal.addEventListener('abort', () => heard.resolve(false))
  const wire = openRedisWire(link, `doctor ${randomBytes(8).toString('hex')}`, quiet)({ received: () => {}, changed: heard.resolve })
  try {
    if (!(await heard.promise)) return { ...where, is: 'silent' }
    return { ...where, is: 'heard', versions: await versionsOf(link) }
  } finally {
    await wire.close()
    link.close()
  }
}

/** Of each server, its major version; a user who may not ask is told nothing. */
async function versionsOf({ commands }: RedisLink): Promise<number[]> {
  const servers = commands instanceof Redis ? [commands] : commands.nodes('master')
  const infos = await Promise.all(servers.map((server) => server.info('server').catch(() => '')))
  return infos.flatMap((info) => /^redis_version:(\d+)/m.exec(info)?.slice(1).map(Number) ?? [])
}
