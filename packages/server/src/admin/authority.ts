/**
 * Who may do what, and that it leaves a trace (G24, docs/operations/admin.md). Every request with a token goes through `admit`: the token, the
 * admin as the database has it now, the role that the row of the route asks for. Every answerer is wrapped by `audited`: what changes
 * something is written into the audit log before it begins, and when it ended; what only looks is noted. So no route can be served
 * without a rule or without a trace, and nothing is done that could not be written down first.
 */
import { ADMIN_ROUTES, type AdminRoute, type AdminRouteName, mayAct } from '@sealpost/protocol'
import { adminName, type AuditEntry, type AuditOutcome, deviceName, type Origin } from '../audit/entry.ts'
import type { Audit } from '../audit/recorder.ts'
import type { Answer, AnyAnswer, AnyAnswers } from '../http/call.ts'
import { bearerOf, thumbprint } from '../http/auth/jwt.ts'
import { type Problem, problemOf } from '../http/problems.ts'
import type { Asking } from '../http/router.ts'
import type { RateLimits } from '../limits/rate-limits.ts'
import type { AdminStore } from '../ports/store.ts'
import type { AdminCaller } from './call.ts'

export type AuthorityDeps = {
  store: Pick<AdminStore, 'findAdmin'>
  /** Null for every token that is not in force. */
  tokens: { verify(token: string): Promise<{ admin_id: string; jkt: string } | null> }
  limits: Pick<RateLimits, 'take'>
  audit: Audit
}

export async function admitAdmin(
  deps: AuthorityDeps,
  name: string,
  { authorization, ...origin }: Asking,
): Promise<{ caller: AdminCaller } | { problem: Problem }> {
  const token = bearerOf(authorization)
  const claims = token === undefined ? null : await deps.tokens.verify(token)
  const admin = claims === null ? null : await deps.store.findAdmin(claims.admin_id)
  if (claims === null || admin === null || admin.removed_at !== null || (await thumbprint(admin.public_key)) !== claims.jkt) {
    if (token !== undefined) deps.audit.note({ actor: 'stranger', action: 'admin_token_refused', outcome: 'refused', target: name, origin })
    return { problem: { code: 'unauthorized' } }
  }
  const { admin_id, role } = admin
  const retry_after_ms = await deps.limits.take('admin', admin_id)
  if (retry_after_ms !== null) return { problem: { code: 'rate_limited', retry_after_ms } }
  const least = leastRole(name)
  if (least === null || !mayAct(role, least)) {
    deps.audit.note({ actor: adminName(admin_id), action: 'role_refused', outcome: 'refused', target: name, origin, detail: { role } })
    return { problem: { code: 'forbidden', detail: `this asks for the role ${least ?? 'of nobody'}, and yours is ${role}` } }
  }
  return { caller: { admin_id, name: admin.name, role } }
}

/** Null: there is no rule, and so it is nobody's. */
function leastRole(name: string): AdminCaller['role'] | null {
  const row = rowOf(name)
  return row?.auth === 'token' ? row.role : null
}

function rowOf(name: string): AdminRoute | undefined {
  return Object.hasOwn(ADMIN_ROUTES, name) ? ADMIN_ROUTES[name as AdminRouteName] : undefined
}

type SomeCall = {
  caller: AdminCaller | null
  params?: Readonly<Record<string, string>> | undefined
  body?: unknown
} & Origin

/** The same answers, each of which leaves a trace. */
export function audited(answers: AnyAnswers, audit: Audit): AnyAnswers {
  return Object.fromEntries(
    Object.entries(answers).map(([name, answer]) => {
      const row = rowOf(name)
      if (row?.auth !== 'token') return [name, answer]
      return [name, row.method === 'GET' ? noted(name, answer, audit) : written(name, answer, audit)]
    }),
  )
}

function noted(name: string, answer: AnyAnswer, audit: Audit) {
  return async (call: SomeCall): Promise<Answer> => {
    try {
      const given = await answer(call as never)
      audit.note(entryOf(name, call, endOf(given)))
      return given
    } catch (error) {
      audit.note(entryOf(name, call, endOfError(error)))
      throw error
    }
  }
}

function written(name: string, answer: AnyAnswer, audit: Audit) {
  return async (call: SomeCall): Promise<Answer> => {
    await audit.write(entryOf(name, call, { outcome: 'begun' }))
    // that it began is on disk, and it cannot be undone: how it ended is written down as soon as that is possible
    const end = (entry: AuditEntry): Promise<void> => audit.write(entry).catch(() => audit.note(entry))
    let given: Answer
    try {
      given = await answer(call as never)
    } catch (error) {
      await end(entryOf(name, call, endOfError(error)))
      throw error
    }
    await end(entryOf(name, call, endOf(given)))
    return given
  }
}

/** How far it came; `made`: what had no name before. */
type Progress = { outcome: AuditOutcome; code?: string; made?: string | undefined }

function entryOf(action: string, call: SomeCall, { outcome, code, made }: Progress): AuditEntry {
  const { user_id = null, ...params } = call.params ?? {}
  const detail = { ...plainOf(call.body), ...(code === undefined ? {} : { code }) }
  return {
    actor: call.caller === null ? 'stranger' : adminName(call.caller.admin_id),
    action,
    outcome,
    user_id,
    target: made ?? targetOf(params),
    origin: { request_id: call.request_id, address: call.address },
    detail: Object.keys(detail).length === 0 ? null : detail,
  }
}

/** What the parameters of a route name, beside the account. */
function targetOf({ device_id, admin_id, ...others }: Readonly<Record<string, string>>): string | null {
  if (device_id !== undefined) return deviceName(device_id)
  if (admin_id !== undefined) return adminName(admin_id)
  const [[name, value] = []] = Object.entries(others)
  return name === undefined ? null : `${name === 'rule' ? 'limit' : name.replace(/_id$/, '')}:${value}`
}

/** What was asked for: numbers and short texts, as no body of an operator holds a secret. */
function plainOf(body: unknown): Record<string, string | number | boolean | null> {
  if (typeof body !== 'object' || body === null) return {}
  const entries = Object.entries(body).filter(
    (entry): entry is [string, string | number | boolean | null] =>
      entry[1] === null || ['string', 'number', 'boolean'].includes(typeof entry[1]),
  )
  return Object.fromEntries(entries)
}

function endOf(answer: Answer): Progress {
  if ('problem' in answer) return { outcome: 'refused', code: answer.problem.code }
  const { admin_id, invite } = ('json' in answer ? answer.json : {}) as { admin_id?: string; invite?: { invite_id: string } }
  return { outcome: 'done', made: invite !== undefined ? `invite:${invite.invite_id}` : admin_id && adminName(admin_id) }
}

function endOfError(error: unknown): Progress {
  const { code } = problemOf(error)
  return { outcome: code === 'internal' || code === 'unavailable' ? 'failed' : 'refused', code }
}
