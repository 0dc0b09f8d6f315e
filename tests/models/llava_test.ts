import { AutoModelForImageTextToText } from "../../mod.ts";
import { recordedTests } from "./recorded.ts";
import { reportSkipped } from "./support.ts";

recordedTests({ arch: "llava", auto: AutoModelForImageTextToText });
reportSkipped();
