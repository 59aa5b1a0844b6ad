import { expect, test } from 'vitest'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { startRedis } from '@sealpost/testing/components/redis'
import { lookAtRedis } from './look-redis.ts'

describeWith(['redis-server'], 'the Redis of a relay', () => {
  test('is heard as an ACL user, with its version; one that is not there, and one whose channels are closed, is silent', async () => {
    const [open, closed] = await Promise.all([startRedis({ acl: true }), startRedis({ acl: '-@all +@connection +info' })])
    try {
      const look = (url: string) =>
        lookAtRedis({ mode: 'standalone', urls: [url], master: '', sentinel_password: null }, AbortSignal.timeout(2_000))
      const [heard, shut, nobody] = await Promise.all([look(open.url), look(closed.url), look('redis://127.0.0.1:1')])
      expect(heard).toEqual({ mode: 'standalone', over: 'loopback', tls: false, is: 'heard', versions: [expect.any(Number)] })
      expect([shut.is, nobody.is]).toEqual(['silent', 'silent'])
    } finally {
      await Promise.all([open.stop(), closed.stop()])
    }
  })
})
