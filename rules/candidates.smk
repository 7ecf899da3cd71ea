# Structures that wait for a label, and the D-optimal subset of them.


if RUN.generation == 0:

    rule generate_candidates:
        output:
            candidates=GEN.candidates,
        log:
            job_log("generate_candidates"),
        conda:
            "../envs/mlip.yaml"
        script:
            "../scripts/generate_candidates.py"

else:

    rule collect_candidates:
        input:
            extracted=PREVIOUS.extracted,
            selected=PREVIOUS.selected,
            summary=PREVIOUS.summary,
        output:
            candidates=GEN.candidates,
        log:
            job_log("collect_candidates"),
        localrule: True
        conda:
            "../envs/mlip.yaml"
        script:
            "../scripts/collect_candidates.py"


rule select_structures:
    input:
        candidates=GEN.candidates,
        labels=earlier("labels"),
        potential=earlier("potential")[-1:],
        active_set=earlier("active_set")[-1:],
    output:
        selected=GEN.selected,
    log:
        job_log("select_structures"),
    benchmark:
        job_benchmark("select_structures")
    conda:
        "../envs/mlip.yaml"
    script:
        "../scripts/select_structures.py"
