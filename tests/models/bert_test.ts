import { AutoModel } from "../../mod.ts";
import { recordedTests } from "./recorded.ts";
import { reportSkipped } from "./support.ts";

recordedTests({ arch: "bert", auto: AutoModel });
reportSkipped();
