import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { type Home, Sealpost, SealpostError } from '../src/index.ts'
import { openHome } from '../src/node.ts'
import { settled, useRelay } from '@sealpost/testing/relays/relay-with-homes'

const relay = useRelay()

async function openAgain(name: string, wrap: (home: Home) => Home = (home) => home): Promise<Sealpost> {
  return relay.keep(await Sealpost.open({ home: wrap(await openHome(relay.last(name)!)) }))
}

/** A home whose processes find a leader only at the given try. */
function failing(home: Home, failures: () => number): Home {
  const coordination: Home['coordination'] = {
    async lead(signal) {
      if (failures() > 0) throw new SealpostError('timeout', 'another process of this home does not answer')
      return home.coordination.lead(signal)
    },
  }
  return { ...home, coordination }
}

describe('a follower whose leader goes', () => {
  it('asks its successor again what the leader did not answer (B04)', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const phone = await relay.pair(laptop, 'phone')
    const follower = await openAgain('laptop')
    expect(follower.role).toBe('follower')
    await relay.stop()
    await settled(() => laptop.state).not.toBe('live')
    const revoking = follower.revoke(phone.device_id)
    await sleep(200)
    await laptop.close()
    await relay.start()
    await revoking
    expect(follower.role).toBe('leader')
    expect((await follower.devices()).find((device) => device.device_id === phone.device_id)?.revoked).not.toBeNull()
  })

  it('is offline until it leads, and goes on trying when it could not at first', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    let left = 0
    const follower = await openAgain('laptop', (home) => failing(home, () => left--))
    await settled(() => follower.state).toBe('live')
    const states: string[] = []
    follower.on((notice) => {
      if (notice.is === 'state') states.push(notice.state)
    })
    left = 2
    await laptop.close()
    await settled(() => follower.role).toBe('leader')
    expect(states[0]).toBe('offline')
    await settled(() => follower.state).toBe('live')
  })

  it('of a home that was wiped meanwhile does not lead on', async () => {
    const { sealpost: laptop } = await relay.create('laptop')
    const follower = await openAgain('laptop', (home) => ({ ...home, store: { ...home.store, readIdentity: gone(home) } }))
    await laptop.close()
    await settled(() => follower.failure?.code).toBe('not_paired')
    await expect(follower.revoke(laptop.device_id)).rejects.toMatchObject({ code: 'not_paired' })
  })
})

/** The identity is there when the home is opened, and no longer after. */
function gone(home: Home): Home['store']['readIdentity'] {
  let reads = 0
  return () => (reads++ === 0 ? home.store.readIdentity() : Promise.resolve(null))
}
