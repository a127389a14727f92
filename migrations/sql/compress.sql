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
        -- Others wait meanwhile, and may hold what is waited for here: for less than `deadlock_timeout`.
        PERFORM set_config('search_path', @search_path@, true), set_config('lock_timeout', '500ms', true);
        BEGIN
            IF chunk.is_compressed THEN
                CALL convert_to_columnstore(chunk.name, if_not_columnstore => true);
                -- What came since would be missing to a question that has its snapshot, but no plan yet: this does not
                -- look where it was, and that does not see where it is.
                IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
                    LOCK TABLE upkeep IN ACCESS EXCLUSIVE MODE;
                END IF;
            ELSE
                -- TimescaleDB lets every snapshot see what it compresses for the first time, however early. So questions
                -- come to their end while nobody writes; to end a block by an error is to let go of its locks.
                EXECUTE format('LOCK TABLE %s IN EXCLUSIVE MODE', chunk.name);
                BEGIN
                    LOCK TABLE upkeep IN ACCESS EXCLUSIVE MODE;
                    RAISE SQLSTATE 'TQ000';
                EXCEPTION WHEN SQLSTATE 'TQ000' THEN
                END;
                CALL convert_to_columnstore(chunk.name, if_not_columnstore => true);
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
