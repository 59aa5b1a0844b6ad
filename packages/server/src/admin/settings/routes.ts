/** What may be set while the relay runs: who may sign up, the limits, the log level. Each node follows it. */
import type { Settings } from '../../config/settings.ts'
import { RATES, type RateRule } from '../../limits/rules.ts'
import { type AdminAnswers, DONE } from '../call.ts'
import type { SETTING_CONTRACTS } from './contracts.ts'

export function createSettingRoutes(settings: Settings): AdminAnswers<typeof SETTING_CONTRACTS> {
  return {
    async read_signup() {
      const { value, by } = settings.get('signup')
      return { json: { signup: value, by } }
    },
    async set_signup({ body }) {
      await settings.set('signup', body.signup)
      return DONE
    },
    async list_limits() {
      const limits = Object.entries(RATES).map(([rule, { per, duration, says }]) => {
        const { value, by } = settings.get(`rate_${rule as RateRule}`)
        return { rule, per, seconds: duration, points: value, by, says }
      })
      return { json: { limits } }
    },
    async set_limit({ params, body }) {
      await settings.set(`rate_${params.rule as RateRule}`, body.points)
      return DONE
    },
    async read_log_level() {
      const { value, by } = settings.get('log_level')
      return { json: { log_level: value, by } }
    },
    async set_log_level({ body }) {
      await settings.set('log_level', body.log_level)
      return DONE
    },
  }
}
