-- Compresses the chunks whose readings are all older than `config` says, {"compress_after": "720:00"}, and again those to
-- which readings came since: as a job of TimescaleDB, whose arguments it has, or by CALL compress(config => '...'). It
-- commits after each chunk, and may end anywhere.
--
-- Whoever asks holds `upkeep` before the snapshot is taken, and until the answer is there.
CREATE OR REPLACE PROCEDURE compress(job_id integer DEFAULT 0, config jsonb DEFAULT '{}')
LANGUAGE plpgsql AS $$
DECLARE
    before constant timestamptz := now() - (config ->> 'compress_after')::interval;
    chunk record;
    left_out text[];
BEGIN
    IF before IS NULL THEN
        RAISE 'from which age? CALL compress(config => ''{"compress_after": "720:00"}'')';
    END IF;
    -- A procedure that commits cannot have its own search_path.
    PERFORM set_config('search_path', @search_path@, true);
    FOR chunk IN
        SELECT format('%I.%I', chunk_schema, chunk_name)::regclass AS name, is_compressed
        FROM timescaledb_information.chunks CROSS JOIN upkeep
        WHERE hypertable_schema = current_schema() AND hypertable_name = 'temperatures'
          -- What came late to chunks that were dropped is about to be summed up and deleted.
          AND range_start >= dropped_before AND range_end <= before
        ORDER BY range_start
    LOOP
        -- Whoever waits for this chunk may hold what is waited for here: that must end before `deadlock_timeout`.
        PERFORM set_config('search_path', @search_path@, true), set_config('lock_timeout', '500ms', true);
        BEGIN
            IF NOT chunk.is_compressed THEN
                -- What TimescaleDB compresses for the first time, every snapshot sees, however early it is. So all that
                -- there are come to their end first, while nobody writes. The error lets go of the lock.
                EXECUTE format('LOCK TABLE %s IN EXCLUSIVE MODE', chunk.name);
                BEGIN
                    LOCK TABLE upkeep IN ACCESS EXCLUSIVE MODE;
                    RAISE SQLSTATE 'TQ000';
                EXCEPTION WHEN SQLSTATE 'TQ000' THEN
                END;
            END IF;
            CALL convert_to_columnstore(chunk.name, if_not_columnstore => true);
            IF chunk.is_compressed AND pg_current_xact_id_if_assigned() IS NOT NULL THEN
                -- A question with a snapshot of before, and a plan of after this commit, would lack what came since: its
                -- plan does not look where that was, and its snapshot does not see where that is.
                LOCK TABLE upkeep IN ACCESS EXCLUSIVE MODE;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            -- It may have been dropped meanwhile.
            IF EXISTS (SELECT FROM pg_class WHERE oid = chunk.name) THEN
                left_out := left_out || format('%s: %s', chunk.name, SQLERRM);
            END IF;
        END;
        COMMIT;
    END LOOP;
    IF left_out IS NOT NULL THEN
        RAISE '% chunks could not be compressed, which the next run tries again. The first is %',
            cardinality(left_out), left_out[1];
    END IF;
END
$$;
