/**
 * A folder of model files on any server.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { type NetworkError, type Reply, showUrl } from "./http.ts";
import { described, FileAbsent, type RemoteFile, type Repository, statusError } from "./repository.ts";
import { sha256Of } from "./sha256.ts";

/** A folder of files behind a URL. */
export class UrlFolder implements Repository {
  readonly name: string;
  readonly where: string;
  readonly pinned = null;
  readonly versioned = false;

  private constructor(readonly base: URL, readonly folder: string) {
    this.name = this.where = withoutSlash(showUrl(base));
  }

  /** The folder at `base`. A query, e.g. a signature, goes with each request. */
  static async at(base: URL): Promise<UrlFolder> {
    if (base.username !== "" || base.password !== "") {
      throw new InvalidArgument(
        `Cannot load from ${showUrl(base)}: the URL holds a user name or password; pass token instead`,
      );
    }
    // With its query: that may choose the content, and is not to be seen in a file's name.
    const hash = (await sha256Of(base.origin + withoutSlash(base.pathname) + base.search)).slice(0, 16);
    return new UrlFolder(base, `urls/${base.host.replace(/[^\w.-]/g, "_")}--${hash}`);
  }

  ref(name: string): string {
    return name;
  }

  url(name: string): URL {
    const url = new URL(this.base);
    url.hash = "";
    url.pathname = `${withoutSlash(url.pathname)}/${name.split("/").map(encodeURIComponent).join("/")}`;
    return url;
  }

  async describe(name: string, reply: Reply): Promise<RemoteFile> {
    const { tag, size, validator } = described(reply);
    // Servers make ETags of time and length, which two files of a folder may share.
    const version = (await sha256Of(`${name}\0${tag ?? ""}\0${size}`)).slice(0, 40);
    return {
      name,
      url: this.url(name),
      version,
      blob: version,
      unversioned: tag === null,
      size,
      sha256: null,
      tag,
      validator,
    };
  }

  refuse(name: string, reply: Reply, served: boolean): NetworkError {
    const { status } = reply.response;
    const at = `${showUrl(reply.url)} answered ${status}`;
    // Buckets that may not be listed answer 403 for what they do not have.
    if (status === 404 || status === 410 || (status === 403 && served)) {
      return new FileAbsent(`Cannot find ${name}: ${at}`, status, null);
    }
    if (status === 401 || status === 403) {
      return statusError(`Cannot load ${name}: access is denied, pass token if it needs one (${at})`, reply);
    }
    return statusError(`Cannot load ${name}: ${at}`, reply);
  }
}

function withoutSlash(path: string): string {
  return path.replace(/\/+$/, "");
}
