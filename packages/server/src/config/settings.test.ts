import { expect, it } from 'vitest'
import { openSettings, settingsOf } from './settings.ts'
import { RATES } from '../limits/rules.ts'
import { silent } from '@sealpost/testing/relays/silent-log'

it('what was read before a change is not in force after it', async () => {
  const rows = new Map<string, string>()
  const waiting: (() => void)[] = []
  let slow = false
  const store = {
    async readSettings() {
      const read = [...rows].map(([name, value]) => ({ name, value, changed_at: 0 }))
      if (slow) {
        slow = false
        await new Promise<void>((resolve) => waiting.push(resolve))
      }
      return read
    },
    async setSetting(name: string, value: string | null) {
      if (value === null) rows.delete(name)
      else rows.set(name, value)
    },
  }
  const rates = Object.fromEntries(Object.keys(RATES).map((rule) => [rule, 10])) as Parameters<typeof settingsOf>[0]['rates']
  const configured = settingsOf({ signup: 'open', log_level: 'info', rates })
  const settings = await openSettings({ store, configured, apply: () => {}, logger: silent })
  slow = true
  const first = settings.set('signup', 'invite')
  await expect.poll(() => waiting.length).toBe(1)
  const second = settings.set('signup', 'closed')
  setTimeout(() => waiting[0]!(), 50)
  await Promise.all([first, second])
  expect(settings.get('signup')).toEqual({ value: 'closed', by: 'operator' })
  await settings.close()
})
