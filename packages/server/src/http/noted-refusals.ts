/** Assertions that do not hold, as the routes that ask for one refuse them, are noted in the audit log. */
import { type Route, SealpostError } from '@sealpost/protocol'
import type { Answer, AnyAnswer, AnyAnswers } from './call.ts'
import type { Origin } from '../audit/entry.ts'
import type { Audit } from '../audit/recorder.ts'

export function notingRefusals(routes: Readonly<Record<string, Route>>, answers: AnyAnswers, audit: Pick<Audit, 'note'>): AnyAnswers {
  return Object.fromEntries(
    Object.entries(answers).map(([name, answer]) => [name, routes[name]?.auth === 'assertion' ? noting(name, answer, audit) : answer]),
  )
}

function noting(name: string, answer: AnyAnswer, audit: Pick<Audit, 'note'>) {
  return async (call: Origin): Promise<Answer> => {
    const note = (code: string): void => {
      if (code !== 'unauthorized' && code !== 'invalid_token') return
      const { request_id, address } = call
      audit.note({ actor: 'stranger', action: 'assertion_refused', outcome: 'refused', target: name, origin: { request_id, address } })
    }
    try {
      const given = await answer(call as never)
      if ('problem' in given) note(given.problem.code)
      return given
    } catch (error) {
      if (error instanceof SealpostError) note(error.code)
      throw error
    }
  }
}
