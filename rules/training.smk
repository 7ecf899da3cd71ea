# The fit, its active set and its errors.


rule make_reference:
    output:
        frames=PATHS.reference("{walker}"),
    log:
        Path("logs") / "make_reference_{walker}.log",
    benchmark:
        Path("logs") / "make_reference_{walker}.benchmark.tsv"
    conda:
        "../envs/mlip.yaml"
    threads: CONFIG.dft.threads
    script:
        "../scripts/make_reference.py"


rule fit_potential:
    input:
        labels=[*earlier("labels"), GEN.labels],
        previous=earlier("potential")[-1:],
        previous_active_set=earlier("active_set")[-1:],
        reference=expand(PATHS.reference("{walker}"), walker=WALKERS if CONFIG.validation.reference_md else []),
    output:
        potential=GEN.potential,
        yace=GEN.potential_yace,
        active_set=GEN.active_set,
        metrics=GEN.metrics,
        predictions=GEN.predictions,
        forecasts=GEN.forecasts,
    log:
        job_log("fit_potential"),
    benchmark:
        job_benchmark("fit_potential")
    conda:
        "../envs/mlip.yaml"
    threads: CONFIG.training.threads
    script:
        "../scripts/fit_potential.py"
