/** Checks of Redis, by which nodes hear of each other (docs/operations/nodes.md). Nothing is lost without it. */
import { type Check, fail, ok, seen, skipped, warn } from './check.ts'

const VERSION_MIN = { standalone: 6, sentinel: 6, cluster: 7 } as const

export const REDIS_CHECKS: readonly Check[] = [
  {
    name: 'redis',
    says: 'that a hint goes through Redis and comes back',
    run: ({ redis }) =>
      seen(redis, ({ is }) =>
        is === 'heard'
          ? ok('a message came back')
          : warn(
              'no message came back: nodes hear of each other up to 5 s late, and each counts its part of the limits',
              'check that it runs, REDIS_URL and SEALPOST_REDIS_MODE, and that its user may use channels and keys of sealpost:*',
            ),
      ),
  },
  {
    name: 'redis-version',
    says: 'the version of Redis',
    run: ({ redis }) =>
      seen(redis, (found) => {
        if (found.is === 'silent') return skipped('it was not reached')
        const oldest = Math.min(...found.versions)
        if (found.versions.length === 0) return skipped('its user may not ask')
        if (oldest >= VERSION_MIN[found.mode]) return ok(`Redis ${oldest}`)
        const advice = `use Redis ${VERSION_MIN[found.mode]} or later`
        return found.mode === 'cluster' ? fail(`Redis ${oldest}: it has no sharded channels`, advice) : warn(`Redis ${oldest}`, advice)
      }),
  },
  {
    name: 'redis-tls',
    says: 'that the connection to Redis is encrypted',
    run: ({ redis }) =>
      seen(redis, ({ over, tls }) => {
        if (over === 'loopback') return ok('on this machine')
        if (tls) return ok('TLS')
        return warn('plain text over a network: who listens sees users, times and sizes', 'give rediss: URLs in REDIS_URL')
      }),
  },
]
