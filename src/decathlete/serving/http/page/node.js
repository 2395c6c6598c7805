// What the page says about the DICOM node.
import { moment } from "./format.js";

const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;

/** Numbers of jobs, in the order of a job's life. */
export function nodeText({ jobs }) {
  const parts = [`${count(jobs.sent, "result", "results")} sent`];
  if (jobs.queued + jobs.computed) parts.push(`${jobs.queued + jobs.computed} waiting`);
  if (jobs.skipped) parts.push(`${jobs.skipped} skipped`);
  if (jobs.failed) parts.push(`${jobs.failed} failed`);
  return `${parts.join(", ")}.${jobs.skipped + jobs.failed ? " The log has the reasons." : ""}`;
}

/** What an operator should look at, one sentence each. */
export function nodeProblems({ undelivered, failed_copies: copies, archive_problem: problem }) {
  const found = [];
  if (problem) found.push(`The archive cannot be queried: ${problem}.`);
  if (undelivered) found.push(`${count(undelivered, "result was", "results were")} not accepted by the receiver. Sending is repeated.`);
  if (copies.length) {
    const next = moment(Math.min(...copies.map((copy) => copy.next_attempt)));
    const reasons = [...new Set(copies.map((copy) => copy.reason))].join("; ");
    found.push(`${count(copies.length, "series", "series")} of the archive could not be copied: ${reasons}. Next attempt: ${next}.`);
  }
  return found;
}
