import { SealpostError } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { expect, it } from 'vitest'
import { testDevice, testLog } from '@sealpost/testing/clients/honest-events'
import type { Requests } from '../connection/requests.ts'
import { decideRevocation } from './revoke.ts'

const self = testDevice(1)
const other = testDevice(2)
const log = testLog(0, [self, other])

it('whatever is wrong with the tips of a device, it is revoked without pins; only a lost connection is told', async () => {
  const decide = (ask: () => Promise<never>) => {
    const requests = { ask } as unknown as Requests
    return decideRevocation(nodeCrypto, requests, other.device_id, self.device_id)(log, { heads_stale: 0 })
  }
  const unpinned = { type: 'revoke_device', device_id: other.device_id, pins: null }
  for (const code of ['invalid_request', 'timeout', 'unavailable', 'rate_limited', 'invalid_message'] as const)
    expect(await decide(() => Promise.reject(new SealpostError(code, 'no'))), code).toEqual(unpinned)
  const bytes = { head: { type: 'tips', id: 1, last_device_seq: 1, complete: true }, body: new Uint8Array([1, 2, 3]) }
  expect(await decide(() => Promise.resolve(bytes as never))).toEqual(unpinned)
  for (const code of ['unreachable', 'aborted'] as const)
    await expect(decide(() => Promise.reject(new SealpostError(code, 'gone')))).rejects.toMatchObject({ code })
})
