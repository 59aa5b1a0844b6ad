/** `Clock` of the platform. */
import type { Clock } from '../ports.ts'

/** The longest delay that `setTimeout` keeps: 2^31 − 1 ms. */
const TIMER_MS_MAX = 0x7fff_ffff

export const nodeClock: Clock = {
  now: () => Date.now(),
  mono: () => performance.now(),
  setTimer(ms, call, background = false) {
    const timer = setTimeout(call, Math.min(Math.max(ms, 0), TIMER_MS_MAX))
    if (background) timer.unref()
    return () => clearTimeout(timer)
  },
}
