import { duplexPair } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { busContract, KEY } from '@sealpost/testing/relays/bus-nodes'
import { silent } from '@sealpost/testing/relays/silent-log'
import type { Bus } from '../ports/store.ts'
import { createWireHub, openIpcWire } from '../workers/ipc-wire.ts'
import { createMemoryBus } from './memory-bus.ts'
import { openBus } from './open-bus.ts'

describe('in memory', () => {
  busContract(async () => {
    const bus = createMemoryBus()
    return [bus, bus]
  })

  it('is alone', () => {
    expect(createMemoryBus().reach()).toBe('alone')
  })
})

describe('between workers of one machine', () => {
  busContract(() => {
    const hub = createWireHub()
    const openWorker = (): Bus => {
      const [worker, primary] = duplexPair()
      hub.add(primary)
      return openBus(openIpcWire(worker), KEY, silent)
    }
    return Promise.resolve([openWorker(), openWorker()])
  })
})
