/** What the tests of the engine's parts begin from: a clock that is turned by hand, and an account as a log would have it. */
import { eventKey } from '@sealpost/protocol'
import { nodeCrypto } from '@sealpost/protocol/node'
import { epochKey, NOW_MS, type TestDevice, testLog, USER_ID } from './honest-events.ts'
import type { AccountLog } from '../../../client/src/log/account-log.ts'
import type { Clock, Identity } from '../../../client/src/ports.ts'

/** `set`: somebody changes the clock of the device. */
export type TestClock = Clock & { advance(ms: number): void; set(ms: number): void }

export function createTestClock(): TestClock {
  let now = NOW_MS
  let changed = 0
  let timers: { at: number; call: () => void }[] = []
  return {
    now: () => now + changed,
    mono: () => now,
    setTimer(ms, call) {
      const timer = { at: now + ms, call }
      timers.push(timer)
      return () => {
        timers = timers.filter((other) => other !== timer)
      }
    },
    set(ms) {
      changed = ms - now
    },
    advance(ms) {
      now += ms
      const due = timers.filter((timer) => timer.at <= now)
      timers = timers.filter((timer) => timer.at > now)
      for (const timer of due) timer.call()
    },
  }
}

export function identityOf(device: TestDevice): Identity {
  return {
    user_id: USER_ID,
    device_id: device.device_id,
    name: 'test',
    device_type: 'desktop',
    server_url: 'http://127.0.0.1:1',
    server_key: new Uint8Array(32),
    sign_seed: device.sign_seed,
    kem_seed: new Uint8Array(32),
    created_at: NOW_MS,
  }
}

export type TestAccount = AccountLog & { rotate(): void }

/** An account whose epochs all open; `rotate` is what an entry of another device does. */
export function createTestAccount(self: TestDevice, devices: readonly TestDevice[]): TestAccount {
  let log = testLog(0, devices)
  return {
    get log() {
      return log
    },
    rows: [],
    rotate() {
      log = testLog(log.log_seq + 1, devices)
    },
    apply: () => Promise.resolve({ applied: [], missing: false }),
    openKeys: () => Promise.resolve(),
    epochKey: (epoch) => (epoch <= log.log_seq ? epochKey(epoch) : null),
    async sealingKey() {
      const epoch = log.log_seq
      const entry_hash = log.epochs[epoch]?.entry_hash ?? new Uint8Array(32)
      return { epoch, key: await eventKey(nodeCrypto, epochKey(epoch), entry_hash, self.device_id), first_seen: NOW_MS }
    },
    deviceName: (device_id) => device_id,
    refresh: () => Promise.resolve(),
  }
}
