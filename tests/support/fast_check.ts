/** fast-check, pinned here and nowhere else. @module */
export { default } from "npm:fast-check@4.10.2";
