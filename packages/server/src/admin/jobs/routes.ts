/** Jobs: which there are, how their last runs ended, and a run at once. */
import type { Jobs } from '../../jobs/schedule.ts'
import { type AdminAnswers, DONE, NOT_FOUND } from '../call.ts'
import type { JOB_CONTRACTS } from './contracts.ts'

export function createJobRoutes(jobs: Pick<Jobs, 'list' | 'lastRuns' | 'runSoon'>): AdminAnswers<typeof JOB_CONTRACTS> {
  return {
    async list_jobs() {
      const runs = new Map(jobs.lastRuns().map(({ name, ...run }) => [name, run]))
      return { json: { jobs: jobs.list().map(({ name, every_ms }) => ({ job: name, every_ms, last_run: runs.get(name) ?? null })) } }
    },
    run_job: async ({ params }) => (jobs.runSoon(params.job) ? DONE : NOT_FOUND),
  }
}
