import { ERROR, type ErrorCode, SealpostError } from '@sealpost/protocol'
import { describe, expect, it } from 'vitest'
import { encodeProblem, type ProblemCode, problemOf } from './problems.ts'

describe('problems (R02)', () => {
  it.each(Object.keys(ERROR) as ErrorCode[])('an error %s leaves with its code and sentence, or as internal', (code) => {
    const problem = problemOf(new SealpostError(code, 'a safe sentence', { cause: new Error('select secret from /etc/passwd') }))
    const { status, body } = encodeProblem(problem, 'r-1')
    expect([code, 'internal']).toContain(problem.code)
    expect(status).toBeGreaterThanOrEqual(400)
    expect(JSON.stringify(body)).not.toContain('secret')
    expect(body).toMatchObject({
      status,
      code: problem.code,
      request_id: 'r-1',
      type: `urn:sealpost:problem:${problem.code}`,
      title: ERROR[problem.code],
    })
    if (problem.code === 'internal') expect(body).not.toHaveProperty('detail')
  })

  it.each([
    new Error('relation "account" does not exist at /srv/app/store.ts:12'),
    new TypeError('cannot read properties of undefined'),
    Object.assign(new Error('duplicate key value (user_id)=(x)'), { code: '23505', statusCode: 404 }),
    Object.assign(new Error('not a fastify one'), { statusCode: 400 }),
    'a string',
    null,
    undefined,
    { code: 'not_found' },
  ])('whatever else is thrown leaves as internal and says nothing: %s', (error) => {
    expect(encodeProblem(problemOf(error), 'r')).toMatchObject({ status: 500, body: { code: 'internal', title: ERROR.internal } })
    expect(problemOf(error)).toEqual({ code: 'internal' })
  })

  it.each<[string, number, ProblemCode]>([
    ['FST_ERR_CTP_BODY_TOO_LARGE', 413, 'too_large'],
    ['FST_ERR_CTP_INVALID_MEDIA_TYPE', 415, 'invalid_request'],
    ['FST_ERR_CTP_INVALID_JSON_BODY', 400, 'invalid_request'],
    ['FST_ERR_REP_ALREADY_SENT', 500, 'internal'],
  ])('%s of the HTTP layer leaves with a code of ours', (code, statusCode, expected) => {
    expect(problemOf(Object.assign(new Error('internal words'), { code, statusCode }))).toEqual({ code: expected })
  })

  it('tells when to come back, in the header and in the body', () => {
    const { headers, body, status } = encodeProblem({ code: 'rate_limited', retry_after_ms: 1_200.5 }, 'r')
    expect({ status, after: headers['retry-after'], ms: body['retry_after_ms'] }).toEqual({ status: 429, after: '2', ms: 1_201 })
  })
})
