/**
 * Repositories of the Hugging Face Hub, and of servers that answer as it does.
 *
 * @module
 */
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { type NetworkError, type Reply, showUrl } from "./http.ts";
import {
  described,
  FileAbsent,
  header,
  length,
  opaque,
  type RemoteFile,
  type Repository,
  statusError,
} from "./repository.ts";
import { sha256Of } from "./sha256.ts";

const COMMIT = /^[0-9a-f]{40}$/;
const SHA256 = /^[0-9a-f]{64}$/;

/**
 * Whether a text has the form of a repository's id: `name` or `org/name`, the grammar of the hub.
 */
export function isHubId(text: string): boolean {
  return /^(?:[A-Za-z0-9_](?:[\w.-]*\w)?\/)?[A-Za-z0-9_](?:[\w.-]*\w)?$/.test(text) && text.length <= 96 &&
    !text.includes("--") && !text.includes("..") && !text.endsWith(".git");
}

/** Refuses what cannot be a branch, tag or commit. */
export function checkRevision(revision: string): void {
  const plain = /^[A-Za-z0-9_][\w.+@/-]{0,199}$/.test(revision) && !revision.includes("..") &&
    revision.split("/").every((part) => part !== "" && !part.startsWith(".") && !part.endsWith(".lock"));
  if (!plain) {
    throw new InvalidArgument(
      `Cannot load revision ${JSON.stringify(revision.slice(0, 100))}: expected a branch, a tag or a commit`,
    );
  }
}

/** A repository of a hub, at a revision. */
export class HubRepository implements Repository {
  readonly name: string;
  readonly where: string;
  readonly folder: string;
  readonly pinned: string | null;
  readonly versioned = true;
  readonly #endpoint: URL;
  readonly #id: string;
  readonly #revision: string;

  constructor(endpoint: URL, id: string, revision: string) {
    checkRevision(revision);
    this.#endpoint = endpoint;
    this.#id = id;
    this.#revision = revision;
    this.name = id;
    this.where = showUrl(endpoint).replace(/\/+$/, "");
    this.folder = `models--${id.replace("/", "--")}`;
    this.pinned = COMMIT.test(revision) ? revision : null;
  }

  ref(): string {
    return this.#revision;
  }

  url(name: string, version: string | null): URL {
    const url = new URL(this.#endpoint);
    const revision = encodeURIComponent(version ?? this.#revision);
    const file = name.split("/").map(encodeURIComponent).join("/");
    url.pathname = `${url.pathname.replace(/\/+$/, "")}/${this.#id}/resolve/${revision}/${file}`;
    return url;
  }

  async describe(name: string, reply: Reply): Promise<RemoteFile> {
    const plain = described(reply);
    const commit = header(reply, "x-repo-commit");
    const linked = opaque(header(reply, "x-linked-etag"));
    const etag = linked ?? opaque(reply.response.headers.get("etag"));
    if (commit === null || !COMMIT.test(commit) || etag === null) {
      throw new ModelFileError(
        `Cannot load ${this.#id} from ${this.where}: its answer for ${name} has no ${
          etag === null ? "ETag" : "commit (x-repo-commit)"
        }, so this is no hub; for a plain folder behind a URL pass the URL`,
      );
    }
    return {
      name,
      url: this.url(name, commit),
      version: commit,
      blob: COMMIT.test(etag) || SHA256.test(etag) ? etag : (await sha256Of(`${name}\0${etag}`)).slice(0, 40),
      unversioned: false,
      size: length(header(reply, "x-linked-size")) ?? plain.size,
      sha256: linked !== null && SHA256.test(linked) ? linked : null,
      // A commit cannot change, and what serves the bytes of large files has ETags of its own.
      tag: null,
      validator: linked === null ? plain.validator : null,
    };
  }

  refuse(name: string, reply: Reply): NetworkError {
    const { status } = reply.response;
    const code = header(reply, "x-error-code");
    const at = `${showUrl(reply.url)} answered ${status}`;
    const commit = header(reply, "x-repo-commit");
    const absent = (text: string) =>
      new FileAbsent(text, status, commit !== null && COMMIT.test(commit) ? commit : null);
    const error = (text: string) => statusError(text, reply);
    if (code === "GatedRepo" || status === 403) {
      return error(
        `Cannot load ${name} of ${this.#id}: access to it must be granted by its owner; then pass token, or set ` +
          `HF_TOKEN (${at})`,
      );
    }
    if (code === "RevisionNotFound") {
      return error(`Cannot load ${name} of ${this.#id}: there is no revision ${this.#revision} (${at})`);
    }
    if (code === "RepoNotFound" || status === 401) {
      return error(
        `Cannot load ${
          JSON.stringify(this.#id)
        }: there is no local folder of that name, and ${this.where} has no ` +
          `such repository, or it is private: then pass token, or set HF_TOKEN (${at})`,
      );
    }
    if (code === "EntryNotFound" || (status === 404 && commit !== null)) {
      return absent(`Cannot find ${name} in ${this.#id} at revision ${this.#revision} (${at})`);
    }
    if (status === 404) {
      return absent(
        `Cannot find ${name} of ${
          JSON.stringify(this.#id)
        }: there is no local folder of that name, and ${this.where} ` +
          `has no such repository, no revision ${this.#revision}, or no such file in it (${at})`,
      );
    }
    return error(`Cannot load ${name} of ${this.#id}: ${at}`);
  }
}
